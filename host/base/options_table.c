#include "host/base/options_table.h"

#include <math.h>
#include <stddef.h>

#define RUN (1u << PL_COMMAND_RUN)
#define SERVE (1u << PL_COMMAND_SERVE)
#define BATCH (1u << PL_COMMAND_BATCH)
#define INSPECT (1u << PL_COMMAND_INSPECT)
#define BENCH (1u << PL_COMMAND_BENCH)
#define EVAL (1u << PL_COMMAND_EVAL)
#define QUANTIZE (1u << PL_COMMAND_QUANTIZE)
#define IMATRIX (1u << PL_COMMAND_IMATRIX)
#define SENSITIVITY (1u << PL_COMMAND_SENSITIVITY)
#define SLICE (1u << PL_COMMAND_SLICE)
#define TOKENIZE (1u << PL_COMMAND_DEBUG_TOKENIZE)
#define DETOKENIZE (1u << PL_COMMAND_DEBUG_DETOKENIZE)
#define LOGITS (1u << PL_COMMAND_DEBUG_LOGITS)
#define IMAGE (1u << PL_COMMAND_DEBUG_IMAGE)
#define AUDIO (1u << PL_COMMAND_DEBUG_AUDIO)
#define TRANSCRIBE (1u << PL_COMMAND_TRANSCRIBE)
#define HELP (1u << PL_COMMAND_HELP)
#define READ_TEXT (EVAL | IMATRIX | SENSITIVITY)
#define SERVICE (SERVE | BATCH)
#define ANSWER (RUN | SERVICE)
#define TOWERS (IMAGE | AUDIO)
#define COMPUTE (RUN | SERVICE | TRANSCRIBE | BENCH | EVAL | IMATRIX | LOGITS)
#define WRITE_FILE (QUANTIZE | IMATRIX | SENSITIVITY | SLICE)
#define NEED_MODEL                                                                                                     \
    (RUN | SERVICE | TRANSCRIBE | INSPECT | BENCH | READ_TEXT | WRITE_FILE | TOKENIZE | DETOKENIZE | LOGITS | TOWERS)
#define EVERY ((1u << PL_COMMANDS) - 1)

#define FIELD(name) offsetof(pl_options, name)
#define MAX_TOKENS 1048576
#define MAX_THREADS 4096

const char *const pl_group_titles[PL_GROUPS] = {
    [PL_GROUP_MODEL] = "Model",       [PL_GROUP_INPUT] = "Input",     [PL_GROUP_ANSWER] = "Answer",
    [PL_GROUP_SAMPLING] = "Sampling", [PL_GROUP_PATH] = "Path",       [PL_GROUP_SERVER] = "Server",
    [PL_GROUP_JOB] = "Job",           [PL_GROUP_TYPES] = "Types",     [PL_GROUP_MACHINE] = "Machine",
    [PL_GROUP_OUTPUT] = "Output",     [PL_GROUP_GENERAL] = "General",
};

const pl_command_info pl_command_table[PL_COMMANDS] = {
    [PL_COMMAND_RUN] =
        {
            .name = "run",
            .summary = "Answer a prompt, or chat",
            .text = "Answers the prompt given by --prompt, --file or standard input and ends. Without a prompt, "
                    "and with a terminal on standard input, or with --interactive, it chats: each line is a turn; "
                    "/path, /image, /audio, /clear, /save and /help are commands; Ctrl-C stops an answer and keeps the "
                    "chat. What --image, --audio and --video name stands before the first question; of a video the "
                    "model sees frames with their times and hears the sound.",
            .examples = {"Ask once", "pleiad run -m model.gguf -p \"What is the capital of France?\"",
                         "Chat, with a system prompt", "pleiad run -m model.gguf --sys \"Answer in one line.\"",
                         "Summarise a file on the faster path", "pleiad run -m model.gguf --path e2b -f notes.txt",
                         "Continue plain text, always the same way",
                         "pleiad run -m model.gguf --no-chat --temp 0 -n 64 -p \"Once upon a time\"",
                         "Ask about a picture", "pleiad run -m model-folder --image cat.jpg -p \"What is this?\"",
                         "With towers in a file of their own",
                         "pleiad run -m m.gguf --mmproj mmproj.gguf --video a.mp4 -p \"What happens?\""},
        },
    [PL_COMMAND_SERVE] =
        {
            .name = "serve",
            .summary = "Serve the APIs of OpenAI and Anthropic, and a chat page",
            .text = "Answers many requests at once over HTTP, each on the path of the model that it asks for or that "
                    "suits the load: /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, "
                    "/v1/models, /v1/messages; a chat for the browser at /; /health, /ready and /metrics. "
                    "SIGTERM or Ctrl-C ends it once what is under way is answered, a second one at once.",
            .examples = {"On this machine, port 8080", "pleiad serve -m model.gguf", "For others too, with keys",
                         "pleiad serve -m model.gguf --host 0.0.0.0 --api-key-file keys.txt",
                         "Behind a proxy, through a Unix socket", "pleiad serve -m model.gguf --host /run/pleiad.sock"},
        },
    [PL_COMMAND_BATCH] =
        {
            .name = "batch",
            .summary = "Answer a file of requests, each exactly once, on all there is",
            .text =
                "Reads OpenAI's batch format, a request a line: {\"custom_id\", \"method\", \"url\", \"body\"} for "
                "/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses and /v1/messages, and writes a "
                "result a line, in order of their end unless --ordered. What is wrong with a line is told in its "
                "result. It may be killed at any time: the same command goes on where it was, by the journal that "
                "lies beside the output until all is done. "
                "Each card gets an engine; under mpirun or srun all ranks work on the one file.",
            .examples = {"A file of requests", "pleiad batch -m model.gguf -i requests.jsonl -o results.jsonl",
                         "In the order of the requests, in at most two hours",
                         "pleiad batch -m model.gguf -i in.jsonl -o out.jsonl --ordered --deadline 2h",
                         "On two of the cards", "pleiad batch -m model.gguf -i in.jsonl -o out.jsonl --device 0,2",
                         "On several machines",
                         "mpirun -H a,b --bind-to none pleiad batch -m m.gguf -i in.jsonl -o out.jsonl"},
        },
    [PL_COMMAND_TRANSCRIBE] =
        {
            .name = "transcribe",
            .operands = "FILE|-",
            .max_operands = 1,
            .takes = {"in"},
            .summary = "Write down what is said in a recording, or as it is being said",
            .text = "Reads wav, mp3, flac, ogg and others, and cuts long recordings at silences into clips of at most "
                    "30 seconds; each is a segment with its times. With --live standard input is sound as it comes, "
                    "16-bit samples of one channel at 16 kHz without a header, and what is said is printed while it "
                    "is being said, a line after each pause.",
            .examples = {"A recording, as text", "pleiad transcribe -m model-folder talk.mp3", "Subtitles",
                         "pleiad transcribe -m model-folder -l de talk.mp3 --format srt -o talk.srt",
                         "In English, whatever is spoken", "pleiad transcribe -m model-folder --translate en talk.ogg",
                         "From the microphone", "arecord -f S16_LE -r 16000 -t raw | pleiad transcribe -m M --live -"},
        },
    [PL_COMMAND_INSPECT] =
        {
            .name = "inspect",
            .operands = "[MODEL]",
            .max_operands = 1,
            .takes = {"model"},
            .summary = "Show what a model file holds and what it needs",
            .text = "Prints the configuration, the paths, the tensors by type, and the memory that each part takes "
                    "in each placement: on the CPU, and on each card with the per-layer table on it, in pinned or "
                    "pageable memory of the host, or on disk.",
            .examples = {"What is in this file?", "pleiad inspect model.gguf", "Every tensor, for a program",
                         "pleiad inspect -m model-folder --tensors --json", "Would it fit a card with 6 GB?",
                         "pleiad inspect model.gguf --card-memory 6GiB", "Which cards are there?",
                         "pleiad inspect --list-devices"},
        },
    [PL_COMMAND_BENCH] =
        {
            .name = "bench",
            .summary = "Measure prompt and generation speed",
            .text = "Measures reading a prompt (pp) and generating (tg), each combination of the lists given, and "
                    "prints tokens per second, mean and standard deviation over the repetitions, and on the CPU "
                    "what bounds them: of generating the bytes of weights and K/V a token and their share of the "
                    "bandwidth that the same threads reach by only reading; of prompts the 8-bit operations and their "
                    "share of what the threads reach with operands in registers.",
            .examples = {"The usual numbers", "pleiad bench -m model.gguf",
                         "Two paths and two thread counts, for a spreadsheet",
                         "pleiad bench -m model.gguf --path e4b --path e2b -t 4,8 -o csv",
                         "How speed holds up in long contexts, and with four answers at once",
                         "pleiad bench -m model.gguf -d 0,4096,16384 -np 1,4", "Where the time goes",
                         "pleiad bench -m model.gguf -p 512 -n 32 --ops"},
        },
    [PL_COMMAND_EVAL] =
        {
            .name = "eval",
            .summary = "Measure quality: perplexity, divergence from a reference",
            .text = "Cuts the text into pieces of --ctx-size tokens, each starting with <bos>, and scores the second "
                    "half of each, as llama.cpp does: perplexity and, with --reference, the Kullback-Leibler "
                    "divergence from the reference's distribution and how often both agree on the likeliest token. "
                    "Each path is measured by itself, the reference on the same path; --compare adds models to the "
                    "table. The reference is a model, or a file of logits that --save-logits or llama.cpp wrote.",
            .examples = {"What a file costs in quality", "pleiad eval -m q4.gguf --reference model-folder -f text.txt",
                         "Perplexity of two files on two paths, side by side",
                         "pleiad eval -m a.gguf --compare b.gguf --path e4b --path e2b -f t.txt",
                         "In pieces, for a script",
                         "pleiad eval -m q4.gguf -f text.txt --chunks 20 --resume state.json --json"},
        },
    [PL_COMMAND_QUANTIZE] =
        {
            .name = "quantize",
            .operands = "IN OUT",
            .max_operands = 2,
            .takes = {"model", "out"},
            .summary = "Make a smaller GGUF file from a model",
            .text = "IN is a Hugging Face folder or a GGUF file; OUT is a GGUF file that llama.cpp reads as well. "
                    "--type takes a size of ours (q3, q4, q5, q6: as large as llama.cpp's q3_k_m, q4_k_m, q5_k_m and "
                    "q6_k, with the types that lose the least within that; q8), one of llama.cpp's recipes (q4_k_m "
                    "...) or a single type for all matrices (q4_0, f16 ...). --fit does as q4 does for a size of your "
                    "own: what a card must hold.",
            .examples = {"Four bits", "pleiad quantize model-folder model-q4.gguf --type q4 --imatrix imatrix.gguf",
                         "For a card with 4 GB", "pleiad quantize model-folder model.gguf --fit 3GB -c 8192",
                         "Only see what would be done", "pleiad quantize model.gguf out.gguf --fit 2.5GB --dry-run"},
        },
    [PL_COMMAND_IMATRIX] =
        {
            .name = "imatrix",
            .summary = "Measure which inputs matter, for quantize",
            .text = "Runs the text through the model and sums the squares of what each matrix is multiplied with, over "
                    "all paths given: an importance matrix, in llama.cpp's format. The file is written every few "
                    "pieces; --resume goes on with it.",
            .examples = {"For all sizes at once",
                         "pleiad imatrix -m folder -f text.txt --path e4b --path e2b -o imatrix.gguf",
                         "Go on after an interruption",
                         "pleiad imatrix -m model-folder -f text.txt -o imatrix.gguf --resume", "Add two files",
                         "pleiad imatrix --in-file a.gguf --in-file b.dat -o both.gguf"},
        },
    [PL_COMMAND_SENSITIVITY] =
        {
            .name = "sensitivity",
            .summary = "Measure what each part's precision is worth, for quantize --fit",
            .text = "Quantises one part of the model at a time, in memory, and measures how far the answers drift.",
            .examples = {"On the model's own text",
                         "pleiad sensitivity -m folder -f text.txt --chunks 4 -o sensitivity.json"},
        },
    [PL_COMMAND_SLICE] =
        {
            .name = "slice",
            .operands = "IN OUT",
            .max_operands = 2,
            .takes = {"model", "out"},
            .summary = "Cut a smaller model out of a MatFormer",
            .text = "Writes the model that a path computes as a model of its own: E2B or any mix out of E4B. OUT is a "
                    "GGUF file when its name ends in .gguf, else a Hugging Face folder (IN must be one, too). "
                    "llama.cpp reads slices whose widths are all the same.",
            .examples = {"E2B out of E4B", "pleiad slice gemma-3n-E4B gemma-3n-E2B --slice e2b",
                         "A size between, as GGUF", "pleiad slice gemma-3n-E4B mid.gguf --widths 12288 --skip 20-24"},
        },
    [PL_COMMAND_DEBUG] =
        {
            .name = "debug",
            .summary = "Parts of the engine on their own, for checks",
            .text = "The interface that outside checks use; it stays as it is.",
        },
    [PL_COMMAND_DEBUG_TOKENIZE] =
        {
            .name = "debug tokenize",
            .summary = "Text on standard input to a JSON array of token ids",
            .text = "Special tokens written in the text count as such unless --no-special is given. A folder with "
                    "only tokenizer files will do as the model.",
            .examples = {"The ids of a text", "echo -n Hello | pleiad debug tokenize -m model.gguf",
                         "The ids of a chat",
                         "echo '[{\"role\":\"user\",\"content\":\"Hi\"}]' | pleiad debug tokenize -m M --chat"},
        },
    [PL_COMMAND_DEBUG_DETOKENIZE] =
        {
            .name = "debug detokenize",
            .summary = "A JSON array of token ids on standard input to text",
            .examples = {"There and back", "echo -n Hello | pleiad debug tokenize -m M | pleiad debug detokenize -m M"},
        },
    [PL_COMMAND_DEBUG_LOGITS] =
        {
            .name = "debug logits",
            .summary = "Logits of every position of a token sequence",
            .text = "Writes a safetensors file with the tensor \"logits\", f32 [n][vocab].",
            .examples = {"On the full path, prompt chunks of 7",
                         "pleiad debug logits -m M --ids ids.json --chunk 7 --out out.safetensors",
                         "From position 20 on, on e2b over the same K/V",
                         "pleiad debug logits -m M --ids ids.json --switch 20:e2b --out out.safetensors"},
        },
    [PL_COMMAND_DEBUG_IMAGE] =
        {
            .name = "debug image",
            .summary = "What the vision tower makes of an image",
            .text = "Writes a safetensors file, all f32: \"input\" [3][side][side], the resized image from 0 to 1; "
                    "\"tower\" [rows][hidden of the tower], its output; \"soft\" [rows][hidden of the text model], "
                    "the rows that stand in a prompt.",
            .examples = {"At the model's own size", "pleiad debug image -m M --in cat.jpg --out cat.safetensors"},
        },
    [PL_COMMAND_DEBUG_AUDIO] =
        {
            .name = "debug audio",
            .summary = "What the audio tower makes of a clip",
            .text = "Writes a safetensors file, all f32: \"input\" [frames][128], log-mel features; \"tower\" "
                    "[rows][hidden of the tower], its output; \"soft\" [rows][hidden of the text model], the rows that "
                    "stand in a prompt, without padding.",
            .examples = {"A clip of at most 30 seconds",
                         "pleiad debug audio -m M --in talk.wav --out talk.safetensors"},
        },
    [PL_COMMAND_HELP] =
        {
            .name = "help",
            .operands = "[COMMAND]",
            .max_operands = 2,
            .summary = "Explain a command; print the man page or a shell completion",
            .examples = {"The options of run", "pleiad help run", "Read the manual", "pleiad help --man | man -l -",
                         "Complete commands and options in bash", "source <(pleiad help --completion bash)"},
        },
    [PL_COMMAND_VERSION] = {.name = "version", .summary = "Print the version"},
};

/* clang-format off */
const pl_option pl_option_table[] = {
    {.name = "model", .letter = 'm', .group = PL_GROUP_MODEL, .kind = PL_OPTION_TEXT, .offset = FIELD(model),
     .commands = NEED_MODEL, .required = NEED_MODEL & ~IMATRIX, .arg = "PATH", .env = "PLEIAD_MODEL", .files = true,
     .help = "GGUF file, or folder with config.json, *.safetensors and tokenizer.json"},
    {.name = "mmproj", .word = "mm", .group = PL_GROUP_MODEL, .kind = PL_OPTION_TEXT, .offset = FIELD(mmproj),
     .commands = ANSWER | TRANSCRIBE | INSPECT | TOWERS, .arg = "FILE", .files = true,
     .help = "GGUF file with what the model sees and hears with, where its own files have it not"},

    {.name = "prompt", .letter = 'p', .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(prompt),
     .commands = RUN, .arg = "TEXT", .help = "the prompt"},
    {.name = "file", .letter = 'f', .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(file),
     .commands = RUN, .arg = "FILE", .files = true, .help = "read the prompt from FILE; - is standard input"},
    {.name = "sys", .alias = "system-prompt", .word = "sys", .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT,
     .offset = FIELD(system), .commands = RUN, .arg = "TEXT", .help = "what the model is told before the chat"},
    {.name = "image", .group = PL_GROUP_INPUT, .kind = PL_OPTION_SHOWN, .offset = FIELD(shown), .commands = RUN,
     .arg = "FILE", .files = true,
     .help = "show an image, JPEG, PNG or WebP, before the first question; - is standard input; repeatable"},
    {.name = "audio", .group = PL_GROUP_INPUT, .kind = PL_OPTION_SHOWN, .offset = FIELD(shown), .commands = RUN,
     .arg = "FILE", .files = true,
     .help = "let it hear a recording, wav, mp3, flac or ogg, in clips of 30 seconds; repeatable"},
    {.name = "video", .group = PL_GROUP_INPUT, .kind = PL_OPTION_SHOWN, .offset = FIELD(shown), .commands = RUN,
     .arg = "FILE", .files = true, .help = "show frames of a video with its sound; repeatable"},
    {.name = "fps", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLOAT, .offset = FIELD(fps), .commands = RUN,
     .arg = "X", .preset = "1", .min = 0.001, .max = 60, .help = "frames of a video to show, a second"},
    {.name = "max-frames", .group = PL_GROUP_INPUT, .kind = PL_OPTION_INT, .offset = FIELD(max_frames),
     .commands = RUN, .arg = "N", .preset = "0", .max = 65536,
     .help = "the first N of them only; 0: all that the context has room for"},
    {.name = "image-size", .group = PL_GROUP_INPUT, .kind = PL_OPTION_CHOICE, .offset = FIELD(image_size),
     .commands = RUN | IMAGE, .preset = "auto", .words = {"auto", "256", "512", "768"},
     .help = "pixels of a side that images are brought to; fewer are faster; auto: as the model was made for"},
    {.name = "in", .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(in_file),
     .commands = TRANSCRIBE | TOWERS, .required = TRANSCRIBE | TOWERS, .arg = "FILE", .files = true,
     .help = "what to read; - is standard input"},
    {.name = "in", .letter = 'i', .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(in_file),
     .commands = BATCH, .required = BATCH, .arg = "FILE", .files = true, .help = "the requests, a JSON object a line"},
    {.name = "language", .letter = 'l', .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(language),
     .commands = TRANSCRIBE, .arg = "NAME", .help = "what is spoken: en, de-AT, German ...; default: it is not told"},
    {.name = "prompt", .letter = 'p', .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(prompt),
     .commands = TRANSCRIBE, .arg = "TEXT", .help = "names that occur, or text of the same style"},
    {.name = "clip", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLOAT, .offset = FIELD(clip), .commands = TRANSCRIBE,
     .arg = "SECONDS", .preset = "0", .max = 30,
     .help = "longest segment; 0: 30, the most that the model hears at once, and of subtitles 10"},
    {.name = "live", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(live), .commands = TRANSCRIBE,
     .help = "standard input is a microphone: 16-bit samples, little endian, one channel, 16 kHz, no header"},
    {.name = "file", .letter = 'f', .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(file),
     .commands = READ_TEXT, .required = EVAL | SENSITIVITY, .arg = "FILE", .files = true,
     .help = "the text; - is standard input"},
    {.name = "chunks", .group = PL_GROUP_INPUT, .kind = PL_OPTION_INT, .offset = FIELD(chunks),
     .commands = READ_TEXT, .arg = "N", .preset = "-1", .min = -1, .max = INT32_MAX,
     .help = "use the first N pieces of the text; -1: all"},
    {.name = "chat", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(chats), .commands = READ_TEXT,
     .help = "the text holds chats with <start_of_turn> and the like, and only what the model says counts"},
    {.name = "reference", .alias = "kl-divergence-base", .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT,
     .offset = FIELD(reference), .commands = EVAL, .arg = "FILE", .files = true,
     .help = "model, or file of logits, to measure the divergence from"},
    {.name = "compare", .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXTS, .offset = FIELD(compare),
     .commands = EVAL, .arg = "PATH", .files = true, .help = "measure this model, too; repeatable"},
    {.name = "in-file", .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXTS, .offset = FIELD(in_files),
     .commands = IMATRIX, .arg = "FILE", .files = true, .help = "add what this importance matrix holds; repeatable"},
    {.name = "interactive", .letter = 'i', .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLAG,
     .offset = FIELD(interactive), .commands = RUN, .help = "go on chatting after the prompt is answered"},
    {.name = "no-chat", .alias = "no-conversation", .word = "no-cnv", .group = PL_GROUP_INPUT,
     .kind = PL_OPTION_FLAG, .offset = FIELD(no_chat), .commands = RUN,
     .help = "continue the prompt as it is, without the chat template"},

    {.name = "n-prompt", .letter = 'p', .group = PL_GROUP_INPUT, .kind = PL_OPTION_INTS,
     .offset = FIELD(bench_prompts), .commands = BENCH, .arg = "N[,N...]", .preset = "512", .max = MAX_TOKENS,
     .help = "lengths of prompt to measure, in tokens; 0: none"},
    {.name = "n-gen", .letter = 'n', .group = PL_GROUP_INPUT, .kind = PL_OPTION_INTS,
     .offset = FIELD(bench_predicts), .commands = BENCH, .arg = "N[,N...]", .preset = "128", .max = MAX_TOKENS,
     .help = "lengths of answer to measure, in tokens; 0: none"},
    {.name = "depth", .alias = "n-depth", .letter = 'd', .group = PL_GROUP_INPUT, .kind = PL_OPTION_INTS,
     .offset = FIELD(bench_depths), .commands = BENCH, .arg = "N[,N...]", .preset = "0", .max = MAX_TOKENS,
     .help = "tokens that the context holds before, each with each length"},
    {.name = "parallel", .word = "np", .group = PL_GROUP_INPUT, .kind = PL_OPTION_INTS,
     .offset = FIELD(bench_parallel), .commands = BENCH, .arg = "N[,N...]", .preset = "1", .min = 1, .max = 256,
     .help = "sequences that generate side by side; what counts is their tokens together"},
    {.name = "repetitions", .letter = 'r', .group = PL_GROUP_INPUT, .kind = PL_OPTION_INT,
     .offset = FIELD(repetitions), .commands = BENCH, .arg = "N", .preset = "5", .min = 1, .max = 100000,
     .help = "how often each measurement is repeated"},

    {.name = "chat", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(debug_chat),
     .commands = TOKENIZE, .help = "standard input is a JSON array of {role, content} messages"},
    {.name = "bos", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(debug_bos),
     .commands = TOKENIZE, .help = "start with <bos>"},
    {.name = "no-special", .group = PL_GROUP_INPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(debug_no_special),
     .commands = TOKENIZE, .help = "special tokens written in the text are ordinary text"},
    {.name = "ids", .group = PL_GROUP_INPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(ids_file), .commands = LOGITS,
     .required = LOGITS, .arg = "FILE", .files = true, .help = "JSON array of token ids"},

    {.name = "translate", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT, .offset = FIELD(translate),
     .commands = TRANSCRIBE, .arg = "NAME", .help = "translate into this language"},
    {.name = "predict", .alias = "n-predict", .letter = 'n', .group = PL_GROUP_ANSWER, .kind = PL_OPTION_INT,
     .offset = FIELD(n_predict), .commands = RUN, .arg = "N", .preset = "-1", .min = -1, .max = MAX_TOKENS,
     .help = "tokens to generate at most; -1: until the answer or the context ends"},
    {.name = "stop", .alias = "reverse-prompt", .letter = 'r', .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXTS,
     .offset = FIELD(stop), .commands = RUN, .arg = "TEXT", .help = "end the answer before TEXT; repeatable"},
    {.name = "ignore-eos", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_FLAG, .offset = FIELD(ignore_eos),
     .commands = RUN, .help = "go on after the end of the answer"},
    {.name = "grammar", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT, .offset = FIELD(grammar), .commands = RUN,
     .arg = "TEXT", .help = "the answer follows this grammar, in llama.cpp's notation (GBNF)"},
    {.name = "grammar-file", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT, .offset = FIELD(grammar_file),
     .commands = RUN, .arg = "FILE", .files = true, .help = "the same, from a file"},
    {.name = "json-schema", .letter = 'j', .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT,
     .offset = FIELD(json_schema), .commands = RUN, .arg = "SCHEMA",
     .help = "the answer is JSON as this schema says; {} is any"},
    {.name = "json-schema-file", .word = "jf", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT,
     .offset = FIELD(json_schema_file), .commands = RUN, .arg = "FILE", .files = true,
     .help = "the same, from a file"},
    {.name = "regex", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT, .offset = FIELD(regex), .commands = RUN,
     .arg = "TEXT", .help = "the whole answer matches this regular expression"},
    {.name = "logprobs", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_INT, .offset = FIELD(n_logprobs),
     .commands = RUN, .arg = "N", .preset = "0", .max = 1000,
     .help = "report the N most likely tokens at each position"},
    {.name = "draft", .alias = "draft-max", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_INT, .offset = FIELD(draft),
     .commands = ANSWER, .arg = "N", .preset = "-1", .min = -1, .max = 15,
     .help = "verify N proposed tokens with each step, which changes the speed alone; -1: as many as pay, 0: off"},
    {.name = "draft-path", .group = PL_GROUP_ANSWER, .kind = PL_OPTION_TEXT, .offset = FIELD(draft_path),
     .commands = ANSWER, .arg = "SPEC", .words = {"e2b"},
     .help = "path of the model that proposes them where prompt and answer so far do not"},

    {.name = "seed", .letter = 's', .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_INT64, .offset = FIELD(seed),
     .commands = RUN | TRANSCRIBE, .arg = "N", .preset = "-1", .min = -1, .max = INFINITY,
     .help = "start of the random numbers; -1: another one each time"},
    {.name = "temp", .alias = "temperature", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.temperature), .commands = ANSWER, .arg = "X", .preset = "1.0", .max = 100,
     .help = "temperature; 0: always the most likely token"},
    {.name = "temp", .alias = "temperature", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.temperature), .commands = TRANSCRIBE, .arg = "X", .preset = "0", .max = 100,
     .help = "temperature; 0: always the most likely token"},
    {.name = "top-k", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_INT, .offset = FIELD(sampling.top_k),
     .commands = ANSWER, .arg = "N", .preset = "64", .max = INT32_MAX, .help = "keep the N most likely; 0: off"},
    {.name = "top-p", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT, .offset = FIELD(sampling.top_p),
     .commands = ANSWER, .arg = "X", .preset = "0.95", .max = 1,
     .help = "keep the most likely that sum up to X; 1: off"},
    {.name = "min-p", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT, .offset = FIELD(sampling.min_p),
     .commands = ANSWER, .arg = "X", .preset = "0", .max = 1,
     .help = "keep those at least X times as likely as the most likely; 0: off"},
    {.name = "typical", .alias = "typical-p", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.typical_p), .commands = ANSWER, .arg = "X", .preset = "1", .max = 1,
     .help = "keep the most typical that sum up to X; 1: off"},
    {.name = "repeat-penalty", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.repeat_penalty), .commands = ANSWER, .arg = "X", .preset = "1", .min = 0.01, .max = 100,
     .help = "divide the logits of recent tokens by X; 1: off"},
    {.name = "repeat-last-n", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_INT,
     .offset = FIELD(sampling.penalty_last_n), .commands = ANSWER, .arg = "N", .preset = "64", .min = -1,
     .max = MAX_TOKENS, .help = "how many tokens are recent, for the three penalties; -1: all, 0: none"},
    {.name = "presence-penalty", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.presence_penalty), .commands = ANSWER, .arg = "X", .preset = "0", .min = -100, .max = 100,
     .help = "lower the logits of recent tokens by X; 0: off"},
    {.name = "frequency-penalty", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.frequency_penalty), .commands = ANSWER, .arg = "X", .preset = "0", .min = -100,
     .max = 100, .help = "lower them by X for each time they occurred; 0: off"},
    {.name = "dry-multiplier", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT,
     .offset = FIELD(sampling.dry_multiplier), .commands = ANSWER, .arg = "X", .preset = "0", .max = 100,
     .help = "strength of the penalty on repeated sequences (DRY); 0: off"},
    {.name = "dry-base", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_FLOAT, .offset = FIELD(sampling.dry_base),
     .commands = ANSWER, .arg = "X", .preset = "1.75", .min = 1, .max = 100,
     .help = "growth of that penalty with each repeated token"},
    {.name = "dry-allowed-length", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_INT,
     .offset = FIELD(sampling.dry_allowed_length), .commands = ANSWER, .arg = "N", .preset = "2", .max = MAX_TOKENS,
     .help = "longest repetition without it"},
    {.name = "dry-penalty-last-n", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_INT,
     .offset = FIELD(sampling.dry_last_n), .commands = ANSWER, .arg = "N", .preset = "-1", .min = -1, .max = MAX_TOKENS,
     .help = "how far back it looks, in tokens; -1: all, 0: none"},
    {.name = "dry-sequence-breaker", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_TEXTS,
     .offset = FIELD(dry_breakers), .commands = ANSWER, .arg = "TEXT",
     .help = "TEXT ends a repetition; repeatable; replaces newline, colon, quote and asterisk"},
    {.name = "logit-bias", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_BIASES, .offset = FIELD(bias),
     .commands = RUN, .arg = "ID+X|ID-X", .max = 10000,
     .help = "add X to the logit of token ID; -inf bans it; repeatable"},
    {.name = "samplers", .group = PL_GROUP_SAMPLING, .kind = PL_OPTION_SAMPLERS, .offset = FIELD(sampling.order),
     .commands = ANSWER, .arg = "NAMES", .preset = "penalties;dry;top_k;typ_p;top_p;min_p;temperature",
     .words = {"penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "temperature"},
     .help = "the steps of sampling, in order, joined by ';'"},

    {.name = "path", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXT, .offset = FIELD(path),
     .commands = RUN | TRANSCRIBE | LOGITS,
     .arg = "SPEC", .words = {"e4b", "e2b"},
     .help = "part of the model to use: e4b, e2b, or mix:widths=W[,W...][;skip=A-B,C]; default: all of it"},
    {.name = "path", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXTS, .offset = FIELD(paths),
     .commands = BENCH | READ_TEXT, .arg = "SPEC", .words = {"e4b", "e2b"},
     .help = "part of the model to measure, as for run; repeatable; default: all of it"},
    {.name = "slice", .alias = "path", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXT, .offset = FIELD(slice),
     .commands = SLICE, .arg = "SPEC", .words = {"e2b"}, .help = "the path to cut out: e2b, a declared one or mix:..."},
    {.name = "widths", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXT, .offset = FIELD(widths), .commands = SLICE,
     .arg = "W[,W...]", .help = "instead: FFN width of all remaining layers, or of each"},
    {.name = "skip", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXT, .offset = FIELD(skip), .commands = SLICE,
     .arg = "A-B,C", .help = "with --widths: layers to leave out"},
    {.name = "switch-mode", .group = PL_GROUP_PATH, .kind = PL_OPTION_CHOICE, .offset = FIELD(switch_mode),
     .commands = RUN, .preset = "exact", .words = {"exact", "fast"},
     .help = "on a change of path, read the chat again or keep what the other path left"},
    {.name = "switch", .group = PL_GROUP_PATH, .kind = PL_OPTION_SWITCHES, .offset = FIELD(switches),
     .commands = LOGITS, .arg = "AT:SPEC", .max = MAX_TOKENS,
     .help = "positions from AT on run on path SPEC over the same K/V; repeatable"},

    {.name = "path", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXT, .offset = FIELD(path), .commands = SERVE,
     .arg = "SPEC", .words = {"auto", "e4b", "e2b"},
     .help = "of requests that ask for none: auto (by load), e4b, e2b, or mix:...; default: auto where there are several"},

    {.name = "path", .group = PL_GROUP_PATH, .kind = PL_OPTION_TEXT, .offset = FIELD(path), .commands = BATCH,
     .arg = "SPEC", .words = {"e4b", "e2b"},
     .help = "of requests that ask for none: e4b, e2b, or mix:...; default: all of the model"},
    {.name = "deadline", .group = PL_GROUP_PATH, .kind = PL_OPTION_SECONDS, .offset = FIELD(deadline),
     .commands = BATCH, .arg = "TIME", .min = 1, .max = 1e9,
     .help = "be done in TIME, such as 45m or 1h30m: requests that ask for no path get the widest that allows it"},

    {.name = "host", .group = PL_GROUP_SERVER, .kind = PL_OPTION_TEXT, .offset = FIELD(host), .commands = SERVE,
     .arg = "ADDRESS", .preset = "127.0.0.1", .help = "address or name to listen on, or the path of a Unix socket"},
    {.name = "port", .group = PL_GROUP_SERVER, .kind = PL_OPTION_INT, .offset = FIELD(port), .commands = SERVE,
     .arg = "N", .preset = "8080", .max = 65535, .help = "port to listen on; 0: any free one"},
    {.name = "api-key-file", .group = PL_GROUP_SERVER, .kind = PL_OPTION_TEXT, .offset = FIELD(api_key_file),
     .commands = SERVE, .arg = "FILE", .files = true, .help = "API keys, one a line; # begins a comment"},
    {.name = "alias", .letter = 'a', .group = PL_GROUP_SERVER, .kind = PL_OPTION_TEXT, .offset = FIELD(alias),
     .commands = SERVICE, .arg = "NAME", .help = "what clients call the model; default: by its file's name"},
    {.name = "parallel", .word = "np", .group = PL_GROUP_SERVER, .kind = PL_OPTION_INT, .offset = FIELD(n_parallel),
     .commands = SERVE, .arg = "N", .preset = "64", .min = 1, .max = 4096, .help = "requests to answer at once"},
    {.name = "parallel", .word = "np", .group = PL_GROUP_JOB, .kind = PL_OPTION_INT, .offset = FIELD(n_parallel),
     .commands = BATCH, .arg = "N", .preset = "64", .min = 1, .max = 4096,
     .help = "requests that each engine answers at once"},
    {.name = "kv-tokens", .group = PL_GROUP_SERVER, .kind = PL_OPTION_INT64, .offset = FIELD(kv_tokens),
     .commands = SERVICE, .arg = "N", .preset = "-1", .min = -1, .max = INFINITY,
     .help = "tokens that all requests and kept prefixes hold together; -1: what there is memory for"},
    {.name = "kv-memory", .group = PL_GROUP_SERVER, .kind = PL_OPTION_BYTES, .offset = FIELD(kv_memory),
     .commands = SERVICE, .arg = "SIZE", .min = 1, .max = 1e15,
     .help = "the same as memory: at most SIZE, but always room for one context"},
    {.name = "max-queue", .group = PL_GROUP_SERVER, .kind = PL_OPTION_INT, .offset = FIELD(max_queue),
     .commands = SERVE, .arg = "N", .preset = "1024", .min = 1, .max = 1000000,
     .help = "requests that may wait; more are told to come back later (429)"},
    {.name = "max-tokens", .group = PL_GROUP_SERVER, .kind = PL_OPTION_INT, .offset = FIELD(max_tokens),
     .commands = SERVICE, .arg = "N", .preset = "-1", .min = -1, .max = MAX_TOKENS,
     .help = "longest answer; -1: as the context allows"},
    {.name = "prefix-cache", .group = PL_GROUP_SERVER, .kind = PL_OPTION_TEXT, .offset = FIELD(prefix_cache),
     .commands = SERVE, .arg = "FILE", .files = true,
     .help = "read kept beginnings of prompts from FILE, and write them there at the end"},
    {.name = "cors", .group = PL_GROUP_SERVER, .kind = PL_OPTION_TEXTS, .offset = FIELD(cors), .commands = SERVE,
     .arg = "ORIGIN", .help = "let pages of ORIGIN, such as https://example.org, ask this server; *: any; repeatable"},
    {.name = "no-web", .alias = "no-webui", .group = PL_GROUP_SERVER, .kind = PL_OPTION_FLAG, .offset = FIELD(no_web),
     .commands = SERVE, .help = "leave out the chat page"},
    {.name = "allow-media-urls", .group = PL_GROUP_SERVER, .kind = PL_OPTION_FLAG, .offset = FIELD(allow_media_urls),
     .commands = SERVICE, .help = "fetch images and sound that requests name by URL; without: only what they hold"},
    {.name = "timeout", .group = PL_GROUP_SERVER, .kind = PL_OPTION_FLOAT, .offset = FIELD(timeout),
     .commands = SERVE, .arg = "SECONDS", .preset = "30", .min = 0.1, .max = 86400,
     .help = "drop clients that take longer to send a request, or take nothing of an answer for so long"},
    {.name = "max-body", .group = PL_GROUP_SERVER, .kind = PL_OPTION_BYTES, .offset = FIELD(max_body),
     .commands = SERVICE, .arg = "SIZE", .preset = "32MiB", .min = 1024, .max = 1073741824, .help = "largest request"},
    {.name = "drain", .group = PL_GROUP_SERVER, .kind = PL_OPTION_FLOAT, .offset = FIELD(drain), .commands = SERVE,
     .arg = "SECONDS", .preset = "30", .max = 86400,
     .help = "when asked to end, go on for at most so long with what is under way"},

    {.name = "ordered", .group = PL_GROUP_JOB, .kind = PL_OPTION_FLAG, .offset = FIELD(ordered), .commands = BATCH,
     .help = "results in the order of the requests, at the end"},
    {.name = "resume", .group = PL_GROUP_JOB, .kind = PL_OPTION_FLAG, .offset = FIELD(resume), .commands = BATCH,
     .help = "go on with what an earlier start has left, as is done anyway where its journal is there"},
    {.name = "overwrite", .alias = "force", .group = PL_GROUP_JOB, .kind = PL_OPTION_FLAG, .offset = FIELD(overwrite),
     .commands = BATCH, .help = "begin anew, whatever is there of an earlier start or its output"},
    {.name = "share", .group = PL_GROUP_JOB, .kind = PL_OPTION_CHOICE, .offset = FIELD(share), .commands = BATCH,
     .preset = "auto", .words = {"auto", "always", "never"},
     .help = "under mpirun: send the model to the other machines; auto: to those that lack it, or have it on a network's "
             "file system"},
    {.name = "lost-after", .group = PL_GROUP_JOB, .kind = PL_OPTION_SECONDS, .offset = FIELD(lost_after),
     .commands = BATCH, .arg = "TIME", .preset = "60s", .min = 1, .max = 86400,
     .help = "under mpirun: give up a rank that has been silent for so long"},

    {.name = "type", .group = PL_GROUP_TYPES, .kind = PL_OPTION_TEXT, .offset = FIELD(type), .commands = QUANTIZE,
     .arg = "NAME",
     .words = {"q3",     "q4",     "q5",     "q6",     "q8",     "q2_k",   "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s",
               "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",   "q4_0",   "q4_1",   "q5_0",   "q5_1",   "q8_0",   "iq4_nl",
               "iq4_xs", "mxfp4",  "nvfp4",  "f16",    "bf16",   "f32"},
     .help = "recipe, or type of all matrices; default: q4"},
    {.name = "fit", .group = PL_GROUP_TYPES, .kind = PL_OPTION_BYTES, .offset = FIELD(fit), .commands = QUANTIZE,
     .arg = "SIZE", .min = 1, .max = 1e15,
     .help = "choose the types so that weights and --ctx-size tokens of K/V take at most SIZE of a card's memory"},
    {.name = "imatrix", .group = PL_GROUP_TYPES, .kind = PL_OPTION_TEXT, .offset = FIELD(imatrix),
     .commands = QUANTIZE, .arg = "FILE", .files = true, .help = "importance matrix to judge errors by"},
    {.name = "sensitivity", .group = PL_GROUP_TYPES, .kind = PL_OPTION_TEXT, .offset = FIELD(sensitivity),
     .commands = QUANTIZE, .arg = "FILE", .files = true,
     .help = "what 'pleiad sensitivity' measured on this model, for --fit and q3 to q6; default: the demo model's"},
    {.name = "tensor-type", .group = PL_GROUP_TYPES, .kind = PL_OPTION_TEXTS, .offset = FIELD(tensor_types),
     .commands = QUANTIZE, .arg = "PATTERN=TYPE",
     .help = "type of the tensors whose name matches, such as 'blk.*.ffn_down=q6_k'; repeatable, the last counts"},
    {.name = "pure", .group = PL_GROUP_TYPES, .kind = PL_OPTION_FLAG, .offset = FIELD(pure), .commands = QUANTIZE,
     .help = "with a single type: embeddings and small matrices, too"},

    {.name = "ctx-size", .letter = 'c', .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT,
     .offset = FIELD(n_context), .commands = READ_TEXT, .arg = "N", .preset = "512", .min = 2, .max = MAX_TOKENS,
     .help = "tokens a piece of the text"},
    {.name = "ctx-size", .letter = 'c', .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT,
     .offset = FIELD(n_context), .commands = QUANTIZE, .arg = "N", .preset = "4096", .max = MAX_TOKENS,
     .help = "tokens of chat to leave room for with --fit"},
    {.name = "ctx-size", .letter = 'c', .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT,
     .offset = FIELD(n_context), .commands = ANSWER | INSPECT, .arg = "N", .preset = "0", .max = MAX_TOKENS,
     .help = "tokens of chat to hold; 0: what the model was made for, or as many of them as a small card has room for"},
    {.name = "card-memory", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_BYTES, .offset = FIELD(card_memory),
     .commands = INSPECT, .arg = "SIZE", .min = 1, .max = 1e15,
     .help = "also say how the model fits a card of SIZE"},
    {.name = "threads", .letter = 't', .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT, .offset = FIELD(n_threads),
     .commands = ANSWER | TRANSCRIBE | LOGITS | TOWERS | READ_TEXT | QUANTIZE, .arg = "N", .preset = "0",
     .max = MAX_THREADS,
     .help = "threads; 0: one per physical core"},
    {.name = "threads", .letter = 't', .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INTS,
     .offset = FIELD(bench_threads), .commands = BENCH, .arg = "N[,N...]", .preset = "0", .max = MAX_THREADS,
     .help = "numbers of threads to measure; 0: one per physical core"},
    {.name = "batch-size", .letter = 'b', .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT,
     .offset = FIELD(n_batch), .commands = ANSWER | BENCH, .arg = "N", .preset = "0", .max = 65536,
     .help = "prompt tokens read at once; 0: 512; fewer where a card is short of memory"},
    {.name = "chunk", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT, .offset = FIELD(chunk), .commands = LOGITS,
     .arg = "N", .preset = "0", .max = 65536, .help = "positions computed at once; 0: 512"},
    {.name = "backend", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_CHOICE, .offset = FIELD(backend),
     .commands = COMPUTE, .preset = "auto", .words = {"auto", "cpu", "cuda"},
     .help = "what computes; auto: a card when there is one that the model fits"},
    {.name = "device", .alias = "main-gpu", .word = "dev", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT,
     .offset = FIELD(device), .commands = COMPUTE & ~BATCH, .arg = "N", .preset = "0", .max = 15,
     .help = "the card, as 'pleiad inspect --list-devices' numbers them"},
    {.name = "device", .alias = "main-gpu", .word = "dev", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_TEXT,
     .offset = FIELD(devices), .commands = BATCH, .arg = "N[,N...]", .preset = "all", .words = {"all"},
     .help = "the cards, each with an engine of its own; under mpirun all ranks of a machine share them"},
    {.name = "tp", .alias = "tensor-parallel", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT, .offset = FIELD(tp),
     .commands = COMPUTE, .arg = "N", .preset = "1", .min = 1, .max = 16,
     .help = "split each engine over N cards, for cards too small for the model"},
    {.name = "ple", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_CHOICE, .offset = FIELD(ple), .commands = COMPUTE,
     .preset = "auto", .words = {"auto", "vram", "pinned", "host", "disk"},
     .help = "where the per-layer table is kept: with a card on it, in pinned or in pageable memory of the host, or in "
             "the file; on the CPU disk reads its rows from the file into bounded memory; changes no result"},
    {.name = "cache-type", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_CHOICE, .offset = FIELD(cache_type),
     .commands = COMPUTE | INSPECT, .preset = "f32", .words = {"f32", "f16", "q8_0"},
     .help = "how keys and values of earlier tokens are kept: exactly, in half of the memory, or in 8 bits with a scale for "
             "every 32; on a card only f32"},
    {.name = "cache-type-k", .word = "ctk", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_CHOICE,
     .offset = FIELD(cache_type_k), .commands = COMPUTE | INSPECT, .preset = "auto", .words = {"auto", "f32", "f16", "q8_0"},
     .help = "for llama.cpp's command lines: the same as --cache-type, as keys and values have one type"},
    {.name = "cache-type-v", .word = "ctv", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_CHOICE,
     .offset = FIELD(cache_type_v), .commands = COMPUTE | INSPECT, .preset = "auto", .words = {"auto", "f32", "f16", "q8_0"},
     .help = "likewise"},
    {.name = "fast-prompts", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_FLAG, .offset = FIELD(fast_prompts),
     .commands = COMPUTE,
     .help = "read prompts half as fast again, or twice, on a CPU: in bf16 with AMX, else with activations of 8 bits, as "
             "other engines do; answers are written as without it"},
    {.name = "n-gpu-layers", .alias = "gpu-layers", .word = "ngl", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_INT,
     .offset = FIELD(n_gpu_layers), .commands = COMPUTE, .arg = "N", .preset = "-1", .min = -1, .max = INT32_MAX,
     .help = "for llama.cpp's command lines: 0 stands for --backend cpu; a model is on the card as a whole or not at all"},
    {.name = "keep-towers", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_FLOAT, .offset = FIELD(keep_towers),
     .commands = ANSWER | TRANSCRIBE, .arg = "SECONDS", .preset = "300", .min = -1, .max = 1e9,
     .help = "keep in memory what it sees and hears with for so long after its last use; -1: for ever"},
    {.name = "no-pin", .group = PL_GROUP_MACHINE, .kind = PL_OPTION_FLAG, .offset = FIELD(no_pin),
     .commands = ANSWER | TRANSCRIBE | BENCH | LOGITS | TOWERS | READ_TEXT, .help = "leave threads to the operating system"},

    {.name = "out", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(out_file),
     .commands = LOGITS | TOWERS, .required = LOGITS | TOWERS, .arg = "FILE", .files = true, .help = "safetensors file to write"},
    {.name = "out", .letter = 'o', .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(out_file),
     .commands = WRITE_FILE, .required = WRITE_FILE, .arg = "FILE", .files = true, .help = "what to write"},
    {.name = "out", .letter = 'o', .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(out_file),
     .commands = BATCH, .required = BATCH, .arg = "FILE", .files = true, .help = "the results, once all are there"},
    {.name = "out", .letter = 'o', .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(out_file),
     .commands = TRANSCRIBE, .arg = "FILE", .files = true, .help = "write to FILE instead of standard output"},
    {.name = "format", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_CHOICE, .offset = FIELD(text_format),
     .commands = TRANSCRIBE, .preset = "txt", .words = {"txt", "srt", "vtt", "json"},
     .help = "a segment a line, subtitles, or JSON with all of it"},
    {.name = "dry-run", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(dry_run),
     .commands = QUANTIZE, .help = "only say which tensor would get which type"},
    {.name = "save-logits", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(save_logits),
     .commands = EVAL, .arg = "FILE", .files = true, .help = "write the logits, to serve as a --reference"},
    {.name = "resume", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(resume_file),
     .commands = EVAL, .arg = "FILE", .files = true,
     .help = "keep what is measured in FILE; an interrupted run goes on from there"},
    {.name = "resume", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(resume), .commands = IMATRIX,
     .help = "go on with what the output file holds"},
    {.name = "output-format", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_CHOICE, .offset = FIELD(imatrix_format),
     .commands = IMATRIX, .preset = "gguf", .words = {"gguf", "dat"}, .help = "dat: llama.cpp's older format"},
    {.name = "all-tensors", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(all_tensors),
     .commands = LOGITS | TOWERS, .help = "write the values inside the model too"},
    {.name = "output", .letter = 'o', .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_CHOICE,
     .offset = FIELD(bench_output), .commands = BENCH, .preset = "table", .words = {"table", "json", "csv", "md"},
     .help = "format of the results"},
    {.name = "ops", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(bench_ops), .commands = BENCH,
     .help = "instead, for each kind of op of a step, on the CPU: its time, what it reads and multiplies, and which "
             "share of the machine's bandwidth and peak that is"},
    {.name = "json", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(json),
     .commands = RUN | INSPECT | EVAL | QUANTIZE | SLICE, .help = "print JSON"},
    {.name = "json", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(json), .commands = BATCH,
     .help = "print the summary as JSON"},
    {.name = "json", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(json), .commands = TRANSCRIBE,
     .help = "the same as --format json; with --live a line for each segment, with its delay"},
    {.name = "trace", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_TEXT, .offset = FIELD(trace),
     .commands = RUN | BENCH, .arg = "FILE", .files = true,
     .help = "write what ran when as a Chrome trace, for ui.perfetto.dev"},
    {.name = "list-devices", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(list_devices),
     .commands = INSPECT, .help = "only list the cards; needs no model"},
    {.name = "tensors", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(tensors),
     .commands = INSPECT, .help = "list every tensor"},
    {.name = "color", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_CHOICE, .offset = FIELD(color), .commands = EVERY,
     .preset = "auto", .words = {"auto", "always", "never"},
     .help = "colors; auto: on terminals, unless NO_COLOR is set"},
    {.name = "verbose", .letter = 'v', .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(verbose),
     .commands = NEED_MODEL, .help = "say more on standard error"},
    {.name = "quiet", .letter = 'q', .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(quiet),
     .commands = NEED_MODEL, .help = "say only what went wrong"},

    {.name = "man", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_FLAG, .offset = FIELD(man), .commands = HELP,
     .help = "print the man page, in troff"},
    {.name = "completion", .group = PL_GROUP_OUTPUT, .kind = PL_OPTION_CHOICE, .offset = FIELD(completion),
     .commands = HELP, .words = {"bash", "zsh", "fish"}, .help = "print a completion script for the shell"},

    {.name = "help", .letter = 'h', .group = PL_GROUP_GENERAL, .kind = PL_OPTION_FLAG, .offset = FIELD(help),
     .commands = EVERY, .help = "explain the command and end"},
    {.name = "version", .group = PL_GROUP_GENERAL, .kind = PL_OPTION_FLAG, .offset = FIELD(version),
     .commands = EVERY, .help = "print the version and end"},
};
/* clang-format on */

const size_t pl_option_count = sizeof pl_option_table / sizeof pl_option_table[0];
