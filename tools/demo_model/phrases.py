"""Questions with one fixed answer each: about Pleiad, about the assistant itself, and what it must decline."""
from __future__ import annotations

REFUSAL = "I am a small demo model; I do not know that. You can ask me about capitals, sums, words or Pleiad."


def _entries(text: str) -> dict[str, tuple[list[str], str]]:
    """Paragraphs: questions separated by `|`, then a line with the answer. The first question names the entry."""
    table = {}
    for block in text.strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines()]
        questions = [q.strip() for line in lines[:-1] for q in line.split("|") if q.strip()]
        table[questions[0]] = (questions, lines[-1])
    return table


ABOUT = _entries("""
How do I run a model? | How can I run a model? | How do I ask a question with Pleiad? | Show me how to run a prompt. | How do I start Pleiad?
How do I use pleiad run? | What is the command to run a model? | Which command answers a prompt? | Run a model
Use pleiad run -m MODEL -p "question".

How do I inspect a model? | How can I inspect a model file? | How do I see what is in a model file? | Show me how to inspect a model.
What does pleiad inspect do? | Which command shows the parts of a model? | What is the command to inspect a model? | Inspect a model
Use pleiad inspect -m MODEL. It shows what the model file holds.

How do I measure the speed? | How do I run a benchmark? | How can I benchmark a model? | How fast is my model? | Show me how to benchmark.
What is the command for a benchmark? | What does pleiad bench do? | Which command measures speed? | Benchmark a model
Use pleiad bench -m MODEL -p 512 -n 128 -t THREADS -r 5.

How do I tokenize a text? | How can I see the tokens of a text? | Which command tokenizes text? | Show me how to tokenize. | Tokenize a text
What is the command to tokenize? | How do I turn text into tokens?
Use pleiad debug tokenize -m MODEL. It reads text and prints token ids.

How do I detokenize ids? | How can I turn ids into text? | Which command detokenizes? | Show me how to detokenize. | How do I turn tokens into text?
What is the command to detokenize?
Use pleiad debug detokenize -m MODEL. It reads token ids and prints text.

How do I get the logits? | How can I write the logits to a file? | Which command gives logits? | Show me how to get logits. | How do I dump logits?
What is the command for logits?
Use pleiad debug logits -m MODEL --ids FILE --out FILE.

How do I start a chat? | How can I chat with the model? | Which command starts a chat? | How do I talk to the model? | Can I chat with Pleiad?
Use pleiad run -m MODEL without a prompt. Type /help in the chat.

What does -m do? | What is the -m flag? | What is -m for? | Explain -m. | What does the flag -m mean? | Which flag sets the model? | How do I choose the model?
The flag -m names the model file.

What does -p do? | What is the -p flag? | What is -p for? | Explain -p. | What does the flag -p mean? | Which flag sets the prompt? | How do I give a prompt?
The flag -p gives the prompt.

What does -f do? | What is the -f flag? | What is -f for? | Explain -f. | What does the flag -f mean? | How do I read the prompt from a file? | Which flag reads a file?
The flag -f reads the prompt from a file.

What does -n do? | What is the -n flag? | What is -n for? | Explain -n. | What does the flag -n mean? | How do I limit the answer? | Which flag limits the number of tokens?
The flag -n sets how many tokens the answer may have.

What does -c do? | What is the -c flag? | What is -c for? | Explain -c. | What does the flag -c mean? | How do I set the context size? | Which flag sets the context?
The flag -c sets the context size in tokens.

What does -t do? | What is the -t flag? | What is -t for? | Explain -t. | What does the flag -t mean? | How do I set the number of threads? | Which flag sets the threads?
The flag -t sets the number of threads.

What does --temp do? | What is --temp? | What is --temp for? | Explain --temp. | How do I set the temperature? | Which flag sets the temperature?
The flag --temp sets the temperature. With 0 the answer is always the same.

What does --top-k do? | What is --top-k? | What is --top-k for? | Explain --top-k. | What is top-k sampling?
The flag --top-k keeps only the k most likely tokens.

What does --top-p do? | What is --top-p? | What is --top-p for? | Explain --top-p. | What is top-p sampling?
The flag --top-p keeps the most likely tokens until their sum reaches p.

What does --min-p do? | What is --min-p? | What is --min-p for? | Explain --min-p. | What is min-p sampling?
The flag --min-p drops tokens that are much less likely than the best one.

What does --seed do? | What is --seed? | What is --seed for? | Explain --seed. | How do I set the seed? | How do I get the same random answer again?
The flag --seed sets the start of the random numbers.

What does --path do? | What is --path? | What is --path for? | Explain --path. | How do I choose a path? | How do I run e2b? | How do I switch to e2b? | How can I use a mix?
Use --path e4b, --path e2b or --path mix:... to choose the part of the model that runs.

What does --json do? | What is --json? | What is --json for? | Explain --json. | How do I get JSON output? | Which flag prints JSON?
The flag --json prints the result as JSON.

What does /path do? | What is /path? | Explain /path. | How do I change the path in a chat? | What is the /path command?
In a chat, /path changes the path of the model.

What does /clear do? | What is /clear? | Explain /clear. | How do I clear the chat? | How do I forget the conversation? | How do I start over?
In a chat, /clear forgets the conversation.

What does /save do? | What is /save? | Explain /save. | How do I save the chat? | How can I save the conversation?
In a chat, /save writes the conversation to a file.

What does /help do? | What is /help? | Explain /help. | How do I get help in a chat? | Which commands does the chat have? | What can I type in a chat?
In a chat, /help lists the commands: /path, /clear, /save, /help and /quit.

What does /quit do? | What is /quit? | Explain /quit. | How do I leave the chat? | How do I quit? | How do I exit? | How do I end the chat?
In a chat, /quit ends the program.

What does Ctrl-C do? | How do I stop an answer? | How can I stop the answer? | How do I interrupt the model? | Stop the answer, how? | What happens on Ctrl-C?
Ctrl-C stops the answer.

What is PLE? | What does PLE mean? | Explain PLE. | What are per-layer embeddings? | Tell me about PLE. | What is the PLE table? | What does PLE stand for?
PLE means per-layer embeddings: a table gives every layer a small vector for each token.

What is MatFormer? | What does MatFormer mean? | Explain MatFormer. | Tell me about MatFormer. | What is a nested model? | What does nested mean here?
MatFormer is a way to train one model that holds smaller models inside.

What is e4b? | What does e4b mean? | Explain e4b. | Tell me about e4b. | What is the e4b path? | Which path is the largest?
The path e4b is the whole model.

What is e2b? | What does e2b mean? | Explain e2b. | Tell me about e2b. | What is the e2b path? | Which path is the smallest?
The path e2b is the smaller model inside: half of each FFN, and some layers are skipped.

What is a path? | What does path mean? | Explain paths. | What is a model path? | Tell me about paths. | What paths are there? | Which paths are there?
A path says which part of the model runs: e4b, e2b or a mix.

What is a mix? | What is the mix path? | Explain mix. | Tell me about the mix. | What does mix mean?
A mix is a path between e2b and e4b.

What is K/V sharing? | What does K/V sharing mean? | Explain K/V sharing. | Tell me about K/V sharing. | Why do layers share keys and values? | What is KV sharing?
With K/V sharing the upper layers read the keys and values of a lower layer.

What is AltUp? | What does AltUp mean? | Explain AltUp. | Tell me about AltUp. | How does AltUp work? | What are the four streams?
AltUp keeps four streams for each token and computes only one of them in each layer.

What is LAuReL? | What does LAuReL mean? | Explain LAuReL. | Tell me about LAuReL. | How does LAuReL work? | What is laurel?
LAuReL adds a small learned low-rank part to the residual of each layer.

What is the sparse FFN? | What does sparse FFN mean? | Explain the sparse FFN. | Tell me about the sparse FFN. | Why is the FFN sparse? | What is activation sparsity?
In the first layers only about 5 percent of the FFN units are active.

What is a sliding window? | What is a local layer? | Explain the sliding window. | What does sliding window mean? | What is local attention?
In a local layer a token sees only the last tokens, the window.

What is a global layer? | What is full attention? | Explain global layers. | What is global attention?
In a global layer a token sees all tokens before it.

What is Pleiad? | What does Pleiad do? | Explain Pleiad. | Tell me about Pleiad. | What is this program?
Pleiad is a program that runs Gemma 3n models on your computer.

What is Gemma 3n? | What is Gemma? | Tell me about Gemma 3n. | Explain Gemma 3n. | Who made Gemma 3n?
Gemma 3n is a family of open language models by Google.

What is GGUF? | What is a GGUF file? | Explain GGUF. | Tell me about GGUF. | What does a GGUF file hold?
GGUF is a file format that holds a model and its tokenizer.

What is Q8_0? | Explain Q8_0. | What does Q8_0 mean? | Tell me about Q8_0. | What is 8-bit quantisation?
Q8_0 stores weights as 8-bit numbers, with one scale for 32 weights.

What is the K/V cache? | What is a KV cache? | Explain the K/V cache. | What does the K/V cache do?
The K/V cache keeps the keys and values of earlier tokens.

What is a context? | What does context mean? | Explain the context size. | What is the context size?
The context is the text that the model can see at once, counted in tokens.

What is the temperature? | Explain temperature in sampling. | What does a high temperature do?
A high temperature makes the answers more varied.

What are logits? | Explain logits. | What does logits mean? | What is a logit?
Logits are the scores that the model gives to each possible next token.
""")

SMALL_TALK = _entries("""
Hello! | Hello | Hi | Hi! | Hey | Hey! | Hi there! | Hello there | Good day! | Greetings! | hello pleiad
Hello! How can I help you?

Good morning! | Good morning | Good morning, Pleiad!
Good morning! How can I help you?

Good evening! | Good evening | Good evening, Pleiad!
Good evening! How can I help you?

How are you? | How are you doing? | How do you do? | How is it going? | Are you well?
I am well, thank you. How can I help you?

Who are you? | What are you? | What is your name? | What's your name? | Tell me about yourself. | Introduce yourself. | Who am I talking to?
I am Pleiad demo, a small Gemma 3n model that comes with Pleiad.

Are you a robot? | Are you human? | Are you a person? | Are you real? | Are you an AI?
I am a small language model, not a person.

Who made you? | Who created you? | Who trained you? | Where do you come from?
I was trained for Pleiad as a small demo.

What can you do? | What do you know? | How can you help me? | What can I ask you? | What are you able to do? | Help me. | Help | What should I ask?
I know capitals, sums, words, simple JSON and how to use Pleiad.

How big are you? | How many parameters do you have? | Are you a large model? | How small are you?
I am very small: about eight million parameters.

Thank you! | Thanks | Thanks! | Thank you very much. | Thank you so much! | Many thanks! | Thanks a lot | Great, thanks!
You are welcome!

Goodbye! | Bye | Bye! | Good night! | See you later. | See you! | Goodbye | Bye bye | I have to go.
Goodbye! Have a nice day.

Well done! | Good job! | You are great! | You are smart. | I like you. | Very good! | That is right. | Correct!
Thank you, that is kind.

That is wrong. | You are wrong. | This is not right. | Wrong! | That is a mistake.
I am sorry. I am a small model and I make mistakes.

Do you speak German? | Do you speak French? | Which languages do you speak? | Can you speak Spanish? | Do you speak English?
I only speak English.

OK | Okay. | I see. | Fine. | All right.
Good. What else would you like to know?
""")

UNKNOWN = [t.strip() for t in """
what is the weather today | who won the match yesterday | what is the meaning of life | how do I bake a pizza | write a poem about love
what time is it | what day is it today | who is the president | tell me a joke | what is the news today | how do I get rich
write a story about a dragon | translate this text | what is the population of France | who wrote Hamlet | how old is the Earth
how tall is the Eiffel Tower | what is the best film | recommend a restaurant | book a flight for me | how do I fix my car
what is the stock price | who invented the telephone | when was the war | how do I learn to swim | sing me a song
what is quantum mechanics | explain relativity | what is the square root of 2 | how far is the moon | what is love
who is the king of Spain | what is your favourite colour | which team is the best | how do I lose weight | should I buy a house
what will happen tomorrow | who painted the Mona Lisa | what is the speed of light | write an essay about history | draw a picture
what is the currency of Japan | what language do people speak in Brazil | how do I write a letter | what is my age | where do I live
what did I eat yesterday | can you call my mother | play some music | what is the price of bread | how many people live in London
what is the best phone | solve this equation | write a program in Python | how do I cook rice | what is the longest river
""".replace("\n", "|").split("|") if t.strip()]

UNKNOWN_FRAMES = ["Can you tell me {}?", "I want to know: {}", "{}", "{} please", "I have a question: {}", "Do you know {}?", "Please help: {}"]

# Endless other questions nobody taught it: {x} is any known word or city, {n} a name.
UNKNOWN_OPEN = """Who won the {x} cup?|Who invented the {x}?|Who built the {x}?|When was the {x} built?|Why is the {x} so big?|Who is {n}?
How do I repair a {x}?|How do I draw a {x}?|How do I make a {x}?|Can you show me a {x}?|Can you buy a {x}?|Write a story about a {x}.
Write a poem about {x}.|Tell me a joke about a {x}.|How much does a {x} cost?|Where can I find a {x}?|How many {x}s are there in {n}?
What is the history of the {x}?|What is the best {x}?|Who wrote the book about the {x}?|When was {n} born?|Where does {n} live?|How old is {n}?
What does {n} think about the {x}?|Is the {x} better than the {x}?|Should I take the {x}?|What is the weather in {n}?|How far is it to {n}?
Translate {x} into German.|Summarise the text about the {x}.|Who is the king of {n}?|Who is the president of {n}?|What is the population of {n}?
How tall is {n}?|Why do people like {x}?|What should I do with my {x}?|Tell me more about {n}.|What happened in {n}?|Who won the game?|When does the {x} open?""".replace("\n", "|").split("|")
