#!/usr/bin/env bash
# Runs the program as people do and as they should not: what it prints where, and how it ends.
#
#     test_program.sh PLEIAD EXAMPLE MODEL
set -u
pleiad=$1
example=$2
model=$3
interrupt=$(dirname "$0")/interrupt.py
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work XDG_CACHE_HOME=$work/cache
unset PLEIAD_MODEL NO_COLOR
failed=0
count=0

# fail <what>: with what the last run printed.
fail() {
    printf 'FAILED: %s\n  ended with %s\n' "$1" "${rc-?}"
    sed 's/^/  stdout: /' "$work/out" | head -5
    sed 's/^/  stderr: /' "$work/err" | head -5
    failed=1
}

# run <arguments>: standard input from $work/in, or nothing.
run() {
    count=$((count + 1))
    if [ -e "$work/in" ]; then
        "$pleiad" "$@" <"$work/in" >"$work/out" 2>"$work/err"
    else
        "$pleiad" "$@" </dev/null >"$work/out" 2>"$work/err"
    fi
    rc=$?
    rm -f "$work/in"
    if grep -qE 'Sanitizer|runtime error' "$work/err"; then
        fail "sanitizer: $*"
    fi
}

# expect <how it ends> <pattern on standard error> <arguments>
expect() {
    local want=$1 pattern=$2
    shift 2
    run "$@"
    [ "$rc" = "$want" ] && grep -qE -e "$pattern" "$work/err" || fail "$* (wanted $want, $pattern)"
    if [ "$want" != 0 ] && [ -s "$work/out" ]; then
        fail "$* printed to standard output"
    fi
}

# works <arguments>: ends well.
works() {
    run "$@"
    [ "$rc" = 0 ] || fail "$*"
}

# out <pattern>, same <file>: of what the last run printed.
out() {
    grep -qE -e "$1" "$work/out" || fail "no '$1' in the output"
}
same() {
    cmp -s "$work/out" "$1" || fail "output differs from $1"
}

# shown <pattern> <n>: waits for it on so many lines of the screen. press <keys> <n>: waits for the n-th prompt, which comes when
# what the keys ask for is done; only then other keys find somebody who reads them.
shown() {
    for _ in $(seq 2000); do
        [ "$(grep -acE -e "$1" "$work/screen" 2>/dev/null)" -ge "$2" ] && return
        sleep 0.05
    done
    cp "$work/screen" "$work/out"
    fail "no '$1' on $2 lines of the screen"
}
press() {
    printf "$1" >&4
    shown $'^\033\\[1;32m> ' "$2"
}

# number <key>: its value in the JSON just printed.
number() {
    grep -oE "\"$1\":-?[0-9.e+-]+" "$work/out" | head -1 | cut -d: -f2
}

greedy=(run -m "$model" --temp 0 --seed 1 -n 8)

# ---- the command line

expect 2 'no command given'
expect 2 "unknown command 'rum'; did you mean run" rum
expect 2 'no command before' -m x
expect 2 'unknown option --promt; did you mean --prompt' run -m "$model" --promt x
expect 2 'needs --model' run -p x
expect 2 '--model is given twice' inspect -m a b
expect 2 '--predict takes a whole number.*not .many' run -m "$model" -n many -p x
expect 2 '--temp takes a number from 0 to 100, not .-1' run -m "$model" --temp -1 -p x
expect 2 '--top-p takes a number from 0 to 1, not .2' run -m "$model" --top-p 2 -p x
expect 2 '--threads takes a whole number.*not .-3' run -m "$model" -t -3 -p x
expect 2 '--seed takes' run -m "$model" --seed 1.5 -p x
expect 2 'needs a value' run -m "$model" -p
expect 2 'debug needs one of' debug
expect 2 'debug takes one of' debug nothing
expect 2 'needs --ids' debug logits -m "$model" --out x
expect 2 'exclude each other' run -m "$model" -p x -v -q
expect 2 'no-chat continues one text' run -m "$model" --no-chat -i -p x
expect 2 'json reports one answer' run -m "$model" --json -i
expect 2 'sys is part of the chat template' run -m "$model" --no-chat --sys x -p x
expect 2 '--grammar: line 1, column 12: expected' run -m "$model" --grammar 'root ::= (a' -p x
expect 2 '--grammar and --regex both say' run -m "$model" --grammar 'root ::= "a"' --regex a -p x
expect 2 'logprobs needs --json' run -m "$model" --logprobs 2 -p x
expect 2 'nothing to measure' bench -m "$model" -p 0 -n 0
expect 2 '--ple takes one of auto, vram, pinned, host, disk' run -m "$model" --ple ram -p x
expect 2 '--device takes a whole number' run -m "$model" -dev CUDA0 -p x
expect 2 'list-devices is an option of .inspect' run -m "$model" --list-devices

works version
out '^pleiad [0-9]+\.[0-9]+\.[0-9]+$'
for command in run transcribe inspect bench "debug tokenize" "debug detokenize" "debug logits" "debug image" "debug audio" help version; do
    works $command --help
    out "pleiad $command"
    cp "$work/out" "$work/help"
    works help $command
    same "$work/help"
done
works --help
for command in run transcribe inspect bench debug help; do out "^ *$command"; done
works help --completion bash
bash -n "$work/out" || fail 'the bash completion is not bash'
for shell in zsh fish; do
    works help --completion $shell
    [ -s "$work/out" ] || fail "no completion for $shell"
    if command -v $shell >/dev/null; then $shell -n "$work/out" || fail "the $shell completion"; fi
done
works help --man
if command -v groff >/dev/null; then
    warnings=$(groff -man -ww -b -Tutf8 "$work/out" 2>&1 >/dev/null)
    [ -z "$warnings" ] || fail "man page: $warnings"
fi

# ---- models that are none

mkdir "$work/empty_folder"
: >"$work/empty.gguf"
printf 'GGUF' >"$work/short.gguf"
head -c 4096 /dev/zero >"$work/zeros.gguf"
for command in "run -p x" inspect "bench -p 1 -n 1" "debug tokenize" "debug detokenize"; do
    expect 1 "$work/nothing: No such file" $command -m "$work/nothing"
    expect 1 "$work/empty_folder" $command -m "$work/empty_folder"
    expect 1 "$work/empty.gguf" $command -m "$work/empty.gguf"
    expect 1 "$work/short.gguf" $command -m "$work/short.gguf"
    expect 1 "$work/zeros.gguf" $command -m "$work/zeros.gguf"
    expect 1 "$0" $command -m "$0"
done

# ---- one answer

works "${greedy[@]}" -p 'What is the capital of France?'
cp "$work/out" "$work/answer"
[ -s "$work/answer" ] || fail 'no answer'
grep -qE 'prompt [0-9]+ tokens.*first token after.*answer [0-9]+ tokens.*path' "$work/err" || fail 'no line of speeds'
works "${greedy[@]}" -q -p 'What is the capital of France?'
same "$work/answer"
[ ! -s "$work/err" ] || fail '--quiet speaks'
works "${greedy[@]}" -b 3 -t 2 --no-pin -p 'What is the capital of France?'
same "$work/answer"
works "${greedy[@]}" -v -p x
grep -q 'seed [0-9]' "$work/err" && grep -q 'loaded in' "$work/err" || fail '--verbose says too little'

printf 'What is the capital of France?' >"$work/question"
works "${greedy[@]}" -f "$work/question"
same "$work/answer"
printf 'What is the capital of France?\n' >"$work/in"
works "${greedy[@]}"
same "$work/answer"
printf 'What is the capital of France?\n' >"$work/in"
works "${greedy[@]}" -f -
same "$work/answer"
cp "$work/question" "$work/in"
works "${greedy[@]}" --json -p 'Read this:'
cp "$work/out" "$work/piped"
works "${greedy[@]}" --json -p 'Read this:

What is the capital of France?'
[ "$(sed 's/"timings.*//' "$work/out")" = "$(sed 's/"timings.*//' "$work/piped")" ] || fail 'prompt and pipe'

: >"$work/in"
expect 2 'the prompt is empty: nothing on standard input' run -m "$model"
: >"$work/in"
expect 2 'the prompt is empty: nothing in -' run -m "$model" -f -
expect 2 'the prompt is empty' run -m "$model" -p ''
expect 1 "$work/nothing: No such file" run -m "$model" -f "$work/nothing"
expect 1 "$work: Is a directory" run -m "$model" -f "$work"
printf 'a\0b' >"$work/in"
expect 2 'zero byte at position 1' run -m "$model"
"$pleiad" run -m "$model" <&- >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 1 ] && grep -q 'standard input: Bad file descriptor' "$work/err" || fail 'closed standard input'

works "${greedy[@]}" --json --logprobs 3 -n 5 --ignore-eos -p Hello
out '"finish":"length"'
out '"logprobs":\[\{"id":[0-9]+,"text":".*","logprob":-?[0-9]'
[ "$(grep -o '"top":' "$work/out" | wc -l)" = 5 ] || fail 'five tokens, five lists of alternatives'
[ "$(grep -o '"logprob":' "$work/out" | wc -l)" = 20 ] || fail 'five tokens with three alternatives each'
printf 'root ::= "Berlin, " [0-9]{3}\n' >"$work/city.gbnf"
works "${greedy[@]}" -n 20 --grammar-file "$work/city.gbnf" -p Hello
grep -qE '^Berlin, [0-9]{3}$' "$work/out" || fail 'an answer that its grammar does not allow'
works "${greedy[@]}" -n 60 -j '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}' -p Hello
tr -d '[:space:]' <"$work/out" | grep -qE '^\{"n":-?[0-9]+\}?$' || fail 'an answer that its schema does not allow'
works run -m "$model" --json -n 12 --seed 5 -p Hello
sed 's/"timings.*//' "$work/out" >"$work/seeded"
works run -m "$model" --json -n 12 --seed 5 -p Hello
sed -i 's/"timings.*//' "$work/out"
same "$work/seeded"
works "${greedy[@]}" --json --path e2b -p Hello
out '"path":"e2b"'
works "${greedy[@]}" --json --no-chat -p Hello
chatless=$(number prompt_tokens)
works "${greedy[@]}" --json -p Hello
[ "$chatless" -lt "$(number prompt_tokens)" ] || fail '--no-chat is not shorter than the chat'
works "${greedy[@]}" --json --no-chat -p ''
[ "$(number prompt_tokens)" = 1 ] || fail 'an empty text is <bos> alone'
expect 2 'nonsense' run -m "$model" -p x --path nonsense
expect 2 'widths' run -m "$model" -p x --path 'mix:widths=1,2'

for _ in $(seq 200); do printf 'What is the capital of France? '; done >"$work/long"
expect 1 'the prompt is [0-9]+ tokens long; the context holds 128' run -m "$model" -c 128 -f "$work/long"

"$pleiad" "${greedy[@]}" -p Hello </dev/null >/dev/full 2>"$work/err"
rc=$?
[ $rc = 1 ] && grep -q 'standard output: No space left' "$work/err" || fail 'a full standard output'
"$pleiad" "${greedy[@]}" -p Hello </dev/null >&- 2>"$work/err"
rc=$?
[ $rc = 1 ] && grep -q 'standard output: Bad file' "$work/err" || fail 'a closed standard output'
"$pleiad" inspect "$model" >/dev/full 2>"$work/err"
rc=$?
[ $rc = 1 ] && grep -q 'standard output: No space left' "$work/err" || fail 'inspect to a full standard output'
"$pleiad" "${greedy[@]}" -q -n 200 --ignore-eos -p Hello </dev/null 2>"$work/err" | head -c 1 >/dev/null
[ ! -s "$work/err" ] || fail 'a closed pipe is told'

"$interrupt" written "$pleiad" run -m "$model" --ignore-eos -p Hello >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 130 ] && grep -q ', stopped' "$work/err" || fail 'Ctrl-C'

# ---- the example of the interface, which asks as `run --temp 0 -n 256` does

works run -m "$model" --temp 0 -n 256 -p 'What is the capital of France?'
"$example" "$model" 'What is the capital of France?' >"$work/example" 2>"$work/err" || fail 'the example'
[ "$(cat "$work/out")" = "$(cat "$work/example")" ] || fail 'the example answers something else'
"$example" "$work/nothing" Hello >"$work/out" 2>"$work/err" && fail 'the example without a model'
grep -q "$work/nothing" "$work/err" || fail 'the example does not say what is missing'

# ---- a chat, from a pipe

cat >"$work/in" <<END
/help
/path
/path e2b
/path nonsense
/switch fast
/switch slow
/bogus
/save
Hello
"""
several
lines"""
one \\
two
/stats
/regen
/save $work/chat.json
/save $work/no/such/folder.json
/system Be kind.
/clear
/regen
/load $work/chat.json
/load $work/nothing.json
/quit
not read
END
works run -m "$model" -i -n 4 --temp 0
for text in '/regen' '^path (full|e4b),' '^path e2b,' '^fast:' '^context  [0-9]+ of' '^answers  3' 'saved 6 turns' \
    'system: Be kind' 'a new chat' 'loaded 6 turns'; do
    out "$text"
done
for text in nonsense '/switch takes exact or fast' 'no command /bogus; there are /help /path' '/save takes FILE' \
    "$work/no/such" 'nothing has been answered' "$work/nothing.json: No such file"; do
    grep -q -e "$text" "$work/err" || fail "chat: no '$text'"
done
grep -q '"content":"several\\nlines"' "$work/chat.json" || fail 'a message of several lines'
grep -q '"content":"one \\ntwo"' "$work/chat.json" || fail 'a continued line'
grep -q '"role":"assistant"' "$work/chat.json" || fail 'saved answers'
grep -q '"path":"e2b"' "$work/chat.json" || fail 'saved path'
! grep -q 'not read' "$work/err" || fail '/quit goes on'

# A chat longer than its context goes on with its newest turns.
for _ in $(seq 12); do echo 'What is the capital of France?'; done >"$work/in"
works run -m "$model" -i -n 8 --temp 0 --ignore-eos -c 128
grep -q 'outgrew the context of 128 tokens' "$work/err" || fail 'turns that are dropped are told'
! grep -q error "$work/err" || fail 'a long chat'
{ cat "$work/long"; echo; echo Hello; } >"$work/in"
works run -m "$model" -i -n 2 --temp 0 -c 128
grep -q 'tokens long; the context holds 128' "$work/err" || fail 'a message longer than the context'
[ "$(grep -c 'first token' "$work/err")" = 1 ] || fail 'the chat goes on after it'

# The same answers in a chat as alone, on a path that reuses what was said.
printf 'Hello\nWho are you?\n/quit\n' >"$work/in"
works run -m "$model" -i -n 8 --temp 0
grep -q '([0-9]* kept)' "$work/err" || fail 'the second turn reads the first one again'

# ---- on a terminal

if command -v script >/dev/null && ldd "$pleiad" | grep -q libedit; then
    mkfifo "$work/keys"
    : >"$work/screen"
    TERM=xterm script -qefc "'$pleiad' run -m '$model' -n 4" "$work/screen" <"$work/keys" >/dev/null 2>"$work/err" &
    screen=$!
    exec 4>"$work/keys"
    press '' 1
    shown '/help lists commands' 1
    press '/pa\te2b\r' 2
    shown 'MB of weights a token' 1
    printf 'half' >&4
    shown 'half' 1
    press '\003' 3 # drops the line
    press 'Hello\r' 4
    shown 'first token' 1
    press '\003' 5
    shown 'Ctrl-C again' 1
    press '\033[A\r' 6 # the line before
    shown 'kept' 1
    printf '/quit\r' >&4
    exec 4>&-
    wait $screen
    rc=$?
    [ $rc = 0 ] || fail 'a chat on a terminal'
    cp "$work/screen" "$work/out"
    [ "$(grep -c 'first token' "$work/screen")" = 2 ] || fail 'two answers on a terminal'
    grep -q '^Hello' "$XDG_CACHE_HOME/pleiad/history" || fail 'lines are kept'
fi

# ---- inspect, bench

works inspect "$model"
for text in '^Model' '^Types' 'embedding, head' 'per-layer table' '^ *e4b' '^ *e2b' '^Memory' '^Cards'; do
    out "$text"
done
works inspect --json --tensors "$model"
out '"paths":\[\{"path":"e4b"'
out '"tensors":\[\{"name":'
works inspect "$model" --card-memory 1GiB
out '^Per-layer table, with a card'
out '^  a card of 1.07 GB, some 537 MB of it free'
out ' --ple vram .*[0-9]+ tokens, [0-9]+ rows a step'
[ "$(grep -c -e '<- auto' "$work/out")" = 1 ] || fail 'one choice for one card'
works inspect "$model" --card-memory 512MiB
out 'on the CPU: a card of 537 MB: 0.00 GB of its memory are free, this model needs 0.2'
works inspect "$model" --card-memory 24GiB --json
out '"card_placements":\[\{"ple":"vram"'
out '"imagined":true,.*"auto":"vram","placements":\[\{"ple":"vram","fits":true,"context":[0-9]+,"batch_rows":[0-9]+'
works inspect --list-devices
out '^Cards$'
works inspect --list-devices --json
out '^\{"cards":\['
works bench -m "$model" -p 8,16 -n 4 -r 2 -t 1,2 --path e4b --path e2b -o csv
[ "$(wc -l <"$work/out")" = 13 ] || fail 'twelve tests and a heading'
works bench -m "$model" -p 8 -n 4 -r 2 -o json
out '"n_prompt":8,"n_gen":0,"mean":[0-9.]+'
out '"bandwidth_share":0,' # so small a model does not come from memory
out '"backend":"[a-z]+ [^"]+","ple":'
works bench -m "$model" -p 8 -n 4 -r 2 -o md
out '\| *tg4 \| *[0-9.]+ ± [0-9.]+ \|'
works bench -m "$model" -p 8 -n 0 -r 1
out 'pp8'
works bench -m "$model" -p 8 -n 4 -r 1 -t 2 -d 0,40 -np 1,3 -o csv -b 16
[ "$(wc -l <"$work/out")" = 7 ] || fail 'six tests and a heading'
out '^"[^"]+",.*,"e4b",8,0,1,.*,40,1,'
out '^"[^"]+",.*,"e4b",0,4,1,.*,40,3,'
works bench -m "$model" -p 8 -n 4 -r 1 -t 1 --ops --backend cpu
out 'tg4: steps of 1 rows'
out '^matmul [a-z_]+ +[0-9.]+ +[0-9.]+ '
out '^between ops'
works bench -m "$model" -p 8 -n 0 -r 1 -t 1 --ops --backend cpu -o csv
out '^"[^"]+",cpu.*,8,0,0,1,8,"all",'
works bench -m "$model" -p 0 -n 4 -r 1 -t 1 --ops --backend cpu -o json
out '"steps":5,"rows":5,"ops":\[\{"op":"'
expect 2 'nonsense' bench -m "$model" -p 1 -n 0 --path nonsense -o json -q

# ---- cards

# What was asked for of the CPU, and what is left to choose, give the same answer; a card is asked for in vain where
# there is none.
works "${greedy[@]}" -q --backend cpu -p 'What is the capital of France?'
same "$work/answer"
works "${greedy[@]}" -q -ngl 0 -p 'What is the capital of France?'
same "$work/answer"
works "${greedy[@]}" -q --backend cpu --ple vram -dev 7 -p 'What is the capital of France?'
same "$work/answer"
works "${greedy[@]}" -v -ngl 99 --backend auto -p x
if ! "$pleiad" inspect --list-devices --json | grep -q '"name"'; then
    grep -q '^on the CPU: .' "$work/err" || fail 'why there is no card'
    expect 1 'backend cuda: .' "${greedy[@]}" --backend cuda -p x
    expect 1 'backend cuda: .' bench -m "$model" -p 8 -n 0 --backend cuda
    for command in "eval" "imatrix -o $work/no"; do
        expect 1 'backend cuda: .' $command -m "$model" -f "$work/question" -c 4 --backend cuda
    done
    [ ! -e "$work/no" ] || fail 'a file where nothing was computed'
fi

# ---- timelines

works "${greedy[@]}" -q --trace "$work/trace.json" -p 'What is the capital of France?'
same "$work/answer"
cp "$work/trace.json" "$work/out"
out '"traceEvents":\[\{"name":"process_name"'
out '\{"name":"create engine","ph":"X","pid":1,"tid":0,"ts":[0-9.e+]+,"dur":[0-9.e+]+\}'
works bench -m "$model" -p 8 -n 4 -r 2 -t 1,2 --trace "$work/trace.json"
[ "$(grep -o '"name":"repetition' "$work/trace.json" | wc -l)" = 8 ] || fail 'a span for each repetition'
[ "$(grep -o '"name":"create engine' "$work/trace.json" | wc -l)" = 2 ] || fail 'one trace of two engines'
expect 1 "$work/no/such" "${greedy[@]}" --trace "$work/no/such/file" -p x
expect 1 "$work/no/such" bench -m "$model" -p 8 -n 0 --trace "$work/no/such/file"
run "${greedy[@]}" -q --trace /dev/full -p x
[ "$rc" = 1 ] && grep -q '/dev/full' "$work/err" || fail 'a trace that cannot be written'
printf 'older' >"$work/kept.json"
expect 2 'nonsense' "${greedy[@]}" --trace "$work/kept.json" --path nonsense -p x
[ "$(cat "$work/kept.json")" = older ] && [ -z "$(find "$work" -name '*.tmp')" ] || fail 'the trace of a failed run'

# ---- debug

text='Hello <start_of_turn> wörld'
printf '%s' "$text" >"$work/in"
works debug tokenize -m "$model"
cp "$work/out" "$work/ids"
cp "$work/ids" "$work/in"
works debug detokenize -m "$model"
[ "$(cat "$work/out")" = "$text" ] || fail 'there and back'
printf '%s' "$text" >"$work/in"
works debug tokenize -m "$model" --bos
out '^\[2,'
printf '%s' "$text" >"$work/in"
works debug tokenize -m "$model" --no-special
[ "$(tr ',' '\n' <"$work/out" | wc -l)" -gt "$(tr ',' '\n' <"$work/ids" | wc -l)" ] || fail '--no-special'
printf '[{"role":"user","content":"Hi"}]' >"$work/in"
works debug tokenize -m "$model" --chat
out '^\[2,'
for wrong in '' '{' '[{"role":"user"}]' '[{"role":"nobody","content":"x"}]' '[1]' \
    '[{"role":"user","content":"a"},{"role":"user","content":"b"}]'; do
    printf '%s' "$wrong" >"$work/in"
    expect 1 'standard input' debug tokenize -m "$model" --chat
done
printf '' >"$work/in"
works debug tokenize -m "$model"
[ "$(cat "$work/out")" = '[]' ] || fail 'no text, no ids'

# ids <JSON> <pattern>: refused in the same words by both commands that read ids.
ids() {
    printf '%s' "$1" >"$work/in"
    expect 1 "standard input: $2" debug detokenize -m "$model"
    printf '%s' "$1" >"$work/ids.json"
    expect 1 "ids.json: $2" debug logits -m "$model" --ids "$work/ids.json" --out "$work/logits"
}
ids '' 'cannot be read as JSON'
ids '{"a":[1]}' 'holds an object'
ids '[1,"2"]' 'element 1 is a string'
ids '[1,2.5]' 'element 1 is a number with a fraction'
ids '[1,2,-1]' 'element 2 is -1; token ids'
ids '[99999999]' 'element 0 is 99999999; token ids of this model are 0 to'
[ ! -e "$work/logits" ] || fail 'a file without logits'

logits=(debug logits -m "$model" --ids "$work/ids.json")
printf '[]' >"$work/ids.json"
expect 1 'the array is empty' "${logits[@]}" --out "$work/logits"
expect 1 "$work/nothing" debug logits -m "$model" --ids "$work/nothing" --out "$work/logits"
printf '[2,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28]' >"$work/ids.json"
works "${logits[@]}" --out "$work/logits"
for chunk in 1 7 64; do
    works "${logits[@]}" --chunk $chunk --out "$work/chunked"
    cmp -s "$work/logits" "$work/chunked" || fail "--chunk $chunk gives other logits"
done
works "${logits[@]}" --path e2b --out "$work/e2b"
cmp -s "$work/logits" "$work/e2b" && fail 'e2b gives the same logits'
works "${logits[@]}" --switch 10:e2b --out "$work/switched"
cmp -s "$work/logits" "$work/switched" && fail '--switch changes nothing'
works "${logits[@]}" --switch 5:e2b --switch 10:e4b --all-tensors --out "$work/all"
grep -aq '"per_layer_inputs"' "$work/all" && grep -aq '"final.hidden"' "$work/all" || fail '--all-tensors'
expect 2 'switch at 20, but there are only 20' "${logits[@]}" --switch 20:e2b --out "$work/no"
expect 2 'nonsense' "${logits[@]}" --path nonsense --out "$work/no"
expect 2 'nonsense' "${logits[@]}" --switch 3:nonsense --out "$work/no"
expect 1 'cuda' "${logits[@]}" --backend cuda --out "$work/no"
expect 1 "$work/no/such" "${logits[@]}" --out "$work/no/such/file"
expect 1 '/dev/full' "${logits[@]}" --out /dev/full
[ ! -e "$work/no" ] || fail 'a file where nothing was computed'
{ printf '[2'; yes ',5' | head -40000 | tr -d '\n'; printf ']'; } >"$work/ids.json"
expect 1 '40001 token ids; the context holds' "${logits[@]}" --out "$work/no"

# ---- eval

evaluate=(eval -m "$model" -c 64)
works "${evaluate[@]}" -f "$work/long" --chunks 4
out '^model +path +MB +perplexity$'
out ' (e4b|e2b) .* ± '
works "${evaluate[@]}" -f "$work/long" --chunks 4 --reference "$model" --path e4b --path e2b
[ "$(grep -c ' 0.000000 ± 0.000000 .* 100.00 ± 0.00$' "$work/out")" = 2 ] || fail 'a model differs from itself'
works "${evaluate[@]}" -f "$work/long" --chunks 4 --path e4b --save-logits "$work/e4b.logits" --json
cp "$work/out" "$work/plain.json"
out '"pieces":4,"length":64,"chat":false,"scored":124'
cp "$work/long" "$work/in"
works "${evaluate[@]}" -f - --chunks 4 --path e4b --json
[ "$(number perplexity)" = "$(grep -oE '"perplexity":[0-9.]+' "$work/plain.json" | cut -d: -f2)" ] ||
    fail 'another perplexity from standard input'
works "${evaluate[@]}" -f "$work/long" --chunks 4 --path e2b --reference "$work/e4b.logits" --json
[ "$(number kl | cut -c1-6)" != 0.0000 ] && [ "$(number same_top)" != 1 ] || fail 'e2b is e4b'
awk "BEGIN { exit !($(number kl) > 0 && $(number kl) <= $(number kl_max)) }" || fail 'the divergence of e2b'

for wrong in "$work/nothing: No such file" "$work/zeros.gguf"; do
    expect 1 "$wrong" eval -m "${wrong%%:*}" -f "$work/long"
    expect 1 "$wrong" "${evaluate[@]}" -f "$work/long" --reference "${wrong%%:*}"
    expect 1 "$wrong" "${evaluate[@]}" -f "$work/long" --compare "${wrong%%:*}"
done
expect 1 "$work/nothing: No such file" "${evaluate[@]}" -f "$work/nothing"
printf 'Hello' >"$work/in"
expect 2 'standard input: [0-9]+ tokens are too few for a piece of 64' "${evaluate[@]}" -f -
expect 2 'ctx-size 2 leaves nothing' eval -m "$model" -f "$work/long" -c 2
expect 2 'ctx-size 1000000, but .* was made for' eval -m "$model" -f "$work/long" -c 1000000
expect 2 'nonsense' "${evaluate[@]}" -f "$work/long" --path e4b --path nonsense
expect 2 'path e4b is given twice' "${evaluate[@]}" -f "$work/long" --path e4b --path e4b
expect 2 'is given twice' "${evaluate[@]}" -f "$work/long" --compare "$model"
expect 2 'one path, 2 are given' "${evaluate[@]}" -f "$work/long" --path e4b --path e2b --save-logits "$work/no"
expect 2 'resume' "${evaluate[@]}" -f "$work/long" --resume "$work/no" --save-logits "$work/no"
expect 2 'e4b.logits: is of pieces of 64 tokens, expected 32' eval -m "$model" -c 32 -f "$work/long" \
    --reference "$work/e4b.logits"
expect 2 'e4b.logits: holds the first 4 pieces' "${evaluate[@]}" -f "$work/long" --reference "$work/e4b.logits"
tr 'a-y' 'b-z' <"$work/long" >"$work/other"
expect 2 'e4b.logits: is of another text' "${evaluate[@]}" -f "$work/other" --reference "$work/e4b.logits"
head -c 1000 "$work/e4b.logits" >"$work/cut.logits"
expect 1 'cut.logits: has 1000 bytes' "${evaluate[@]}" -f "$work/long" --reference "$work/cut.logits"
expect 1 "$work/no/such" "${evaluate[@]}" -f "$work/long" --chunks 1 --save-logits "$work/no/such/file"
expect 1 "$work/no/such" "${evaluate[@]}" -f "$work/long" --chunks 1 --resume "$work/no/such/file"
[ ! -e "$work/no" ] || fail 'a file where nothing was measured'

for _ in $(seq 9); do
    printf '<start_of_turn>user\nHow many?<end_of_turn>\n<start_of_turn>model\nThere are two.<end_of_turn>\n'
done >"$work/chats"
works "${evaluate[@]}" -f "$work/chats" --chat --json
out '"chat":true,"scored":[1-9]'
expect 2 'no answer' "${evaluate[@]}" -f "$work/long" --chat
expect 2 'second half of each piece' "${evaluate[@]}" -f "$work/chats" --chat --reference "$work/e4b.logits"
expect 2 'second half of each piece' "${evaluate[@]}" -f "$work/chats" --chat --save-logits "$work/no"

# Taken up again, it ends with the same numbers, and does not mistake one run for another.
works "${evaluate[@]}" -f "$work/long" --chunks 4 --path e2b --path e4b --json
cp "$work/out" "$work/both.json"
works "${evaluate[@]}" -f "$work/long" --chunks 4 --path e2b --json --resume "$work/state"
works "${evaluate[@]}" -f "$work/long" --chunks 4 --path e2b --path e4b --json --resume "$work/state"
same "$work/both.json"
expect 2 'e2b, which this run does not' "${evaluate[@]}" -f "$work/long" --chunks 4 --path e4b --resume "$work/state"
expect 2 'of 4 pieces' "${evaluate[@]}" -f "$work/long" --chunks 3 --path e2b --resume "$work/state"
expect 2 'its reference is none' "${evaluate[@]}" -f "$work/long" --chunks 4 --path e2b --path e4b \
    --reference "$model" --resume "$work/state"
expect 2 'another text' "${evaluate[@]}" -f "$work/other" --chunks 4 --path e2b --path e4b --resume "$work/state"

for _ in $(seq 60); do cat "$work/long"; done >"$work/longer"
"$pleiad" "${evaluate[@]}" -t 1 -f "$work/longer" --resume "$work/stopped" </dev/null >"$work/out" 2>"$work/err" &
runner=$!
for _ in $(seq 3000); do
    grep -qs '"path":"[^"]*","pieces":[1-9]' "$work/stopped" && break
    sleep 0.02
done
kill -INT $runner
wait $runner
rc=$?
[ $rc = 130 ] && grep -q 'stopped after [0-9]* of .* pieces; .* keeps them' "$work/err" || fail 'Ctrl-C of eval'
[ ! -s "$work/out" ] || fail 'eval that was stopped prints a result'

# ---- quantize

made=$work/made.gguf
works quantize "$model" "$made"
out ' down '
out 'bits a weight'
out 'A card holds'
[ -s "$made" ] || fail 'nothing written'
works inspect -m "$made"
printf '[2,10,11,12]' >"$work/few.json"
works debug logits -m "$made" --ids "$work/few.json" --out "$work/logits"
cp "$made" "$work/first.gguf"
works quantize "$model" "$made" --type q4 -t 3 -q
cmp -s "$made" "$work/first.gguf" || fail 'another number of threads gives another file'
[ ! -s "$work/out" ] || fail '--quiet prints a table'
works quantize "$model" "$made" --type q8_0 --tensor-type 'blk.*.ffn_up=q4_0' --tensor-type 'blk.1.ffn_up=f16' --json
out '"name":"blk.0.ffn_up.weight","type":"Q4_0"'
out '"name":"blk.1.ffn_up.weight","type":"F16"'
out "\"bytes\":$(stat -c %s "$made"),"
works quantize "$model" "$work/no" --type f16 --dry-run
out 'F16'
works quantize "$model" "$work/no" --type q4 --dry-run --json
out '"file":null'
works quantize "$model" "$work/no" --fit 1GB --dry-run
seq 1 200 >"$work/text"
works sensitivity -m "$model" -f "$work/text" -c 16 --chunks 2 --quiet -o "$work/sensitivity.json"
works quantize "$model" "$work/no" --fit 1GB --sensitivity "$work/sensitivity.json" --dry-run
out 'Predicted divergence'
expect 2 'goes with --fit and types q3 to q6' quantize "$model" "$work/no" --type q8_0 --sensitivity "$work/sensitivity.json"
expect 2 "path 'nonsense'" sensitivity -m "$model" -f "$work/text" -c 16 --path nonsense -o "$work/no"
expect 2 'too few for a piece' sensitivity -m "$model" -f "$work/text" -o "$work/no" -c 2000
expect 2 'are too few: weights take at least' quantize "$model" "$work/no" --fit 1MB
expect 2 'leave out --type' quantize "$model" "$work/no" --fit 1GB --type q4
expect 2 "type 'q4_m'.*did you mean" quantize "$model" "$work/no" --type q4_m
expect 2 "no matrix is named.*did you mean 'blk.0.ffn_up'" quantize "$model" "$work/no" --tensor-type blk.0.ffn_u=q8_0
expect 2 "'q4' is a recipe" quantize "$model" "$work/no" --pure --type q4
expect 2 'same file' quantize "$made" "$work/../$(basename "$work")/made.gguf"
expect 1 "$work/nothing" quantize "$model" "$work/no" --imatrix "$work/nothing"
expect 1 "$work/few.json" quantize "$model" "$work/no" --fit 1GB --sensitivity "$work/few.json"
expect 1 "$work/nothing" quantize "$work/nothing" "$work/no"
expect 1 "$work/no/such" quantize "$model" "$work/no/such/file"
expect 1 '/dev/full' quantize "$model" /dev/full
expect 2 'quantize.* needs' quantize "$model"
head -c 30000 "$made" >"$work/cut.gguf"
expect 1 'cut.gguf' quantize "$work/cut.gguf" "$work/no"
printf 'older' >"$work/kept"
(ulimit -f 64 && trap '' XFSZ && exec "$pleiad" quantize "$model" "$work/kept" -q) >"$work/out" 2>"$work/err"
rc=$?
[ "$rc" = 1 ] && grep -q 'kept: cannot write' "$work/err" || fail 'a full disk'
[ "$(cat "$work/kept")" = older ] || fail 'a full disk takes what was there'
[ ! -e "$work/no" ] && [ -z "$(find "$work" -name '*.tmp')" ] || fail 'files where nothing was made'

# A slice computes what the path computes, whatever it is written as.
cut=$work/slice
[ -d "$model" ] || cut=$work/slice.gguf
echo '[2, 20, 300, 44, 501, 300]' >"$work/ids"
works debug logits -m "$model" --path e2b --ids "$work/ids" --out "$work/path.safetensors"
works slice "$model" "$cut" --slice e2b
out "$cut: [0-9.]+ MB, [0-9,]+ parameters, [0-9]+ of [0-9]+ layers, FFN [0-9]+ x [0-9]+"
works slice "$model" "$work/slice2.gguf" --slice e2b --json
out '"format":"gguf","bytes":[0-9]+,"parameters":[0-9]+,"layers":.."of":0,"ffn":[0-9]+.'
for file in "$cut" "$work/slice2.gguf"; do
    works debug logits -m "$file" --ids "$work/ids" --out "$work/sliced.safetensors"
    cmp -s "$work/path.safetensors" "$work/sliced.safetensors" || fail "$file computes something else than path e2b"
done
works slice "$model" "$work/narrow.gguf" --widths 128
[ ! -s "$work/err" ] || fail 'a word about a slice of even widths'
works slice "$work/narrow.gguf" "$work/narrower.gguf" --quiet --widths 64
[ ! -s "$work/out" ] && [ ! -s "$work/err" ] || fail 'a word from slice --quiet'
works inspect -m "$work/narrower.gguf"
out '^FFN +64 x [0-9]+;'

expect 2 'say what to cut out: --slice e2b' slice "$model" "$work/none.gguf"
expect 2 'leave out --widths' slice "$model" "$work/none.gguf" --slice e2b --widths 64
expect 2 'say what to cut out' slice "$model" "$work/none.gguf" --skip 10
expect 2 'only layers' slice "$model" "$work/none.gguf" --widths 64 --skip 0
expect 2 "path 'nonsense'" slice "$model" "$work/none.gguf" --slice nonsense
expect 2 'its name must end in .gguf' slice "$work/narrow.gguf" "$work/none" --slice full
expect 2 'are the same' slice "$work/narrow.gguf" "$work/narrow.gguf" --slice full
expect 1 'nothing: No such file' slice "$work/nothing" "$work/none.gguf" --slice e2b
expect 1 "$work/nowhere/none.gguf" slice "$model" "$work/nowhere/none.gguf" --slice e2b
if [ -d "$model" ]; then
    expect 2 'not empty' slice "$model" "$cut" --slice e2b
    expect 1 "$work/nowhere/none" slice "$model" "$work/nowhere/none" --slice e2b
fi
for left in "$work"/none* "$work"/*.tmp; do
    [ ! -e "$left" ] || fail "$left is left behind"
done

# A model that has no half of itself.
works slice "$model" "$work/narrow.gguf" --widths 32
works inspect "$work/narrow.gguf"

# Importance matrices.
seq 1 400 >"$work/text"
collect=(imatrix -m "$model" -f "$work/text" -c 32 --chunks 3)
works "${collect[@]}" --path e4b --path e2b -o "$work/both.im"
grep -q 'both.im: 6 pieces of 32 tokens' "$work/err" && [ ! -s "$work/out" ] || fail 'imatrix says what it did'
works "${collect[@]}" --path e2b --path e4b -t 1 --quiet -o "$work/turned.im"
[ ! -s "$work/err" ] || fail 'a word from imatrix --quiet'
expect 0 'complete: all 6 pieces' "${collect[@]}" --path e4b --path e2b -o "$work/both.im" --resume
expect 0 'new.im is not there yet' "${collect[@]}" -o "$work/new.im" --resume
works "${collect[@]}" -o "$work/one.dat" --output-format dat
expect 0 'sum.im: [0-9]+ tensors from 2 files' imatrix --in-file "$work/both.im" --in-file "$work/one.dat" -o "$work/sum.im"
works imatrix --in-file "$work/sum.im" -o "$work/sum.dat" --output-format dat
works "${collect[@]}" --in-file "$work/new.im" -o "$work/twice.im"
works imatrix --in-file "$work/new.im" --in-file "$work/new.im" -o "$work/doubled.im"
works imatrix --in-file "$work/twice.im" -o "$work/again.im"
cmp -s "$work/doubled.im" "$work/again.im" || fail '--in-file adds something else to a run than to a file'

expect 2 'a model and a text .*or files to add up' imatrix -o "$work/none.im"
expect 2 'needs a model' imatrix -f "$work/text" -o "$work/none.im"
expect 2 '--resume needs the model and the text' imatrix --in-file "$work/new.im" --resume -o "$work/none.im"
expect 2 '--path needs the model and the text' imatrix --in-file "$work/new.im" --path e2b -o "$work/none.im"
expect 2 '--resume needs --output-format gguf' "${collect[@]}" -o "$work/none.im" --resume --output-format dat
expect 2 "path 'nonsense'" "${collect[@]}" --path nonsense -o "$work/none.im"
expect 2 'path e2b is given twice' "${collect[@]}" --path e2b --path e2b -o "$work/none.im"
expect 2 'too few for a piece of 30000' imatrix -m "$model" -f "$work/text" -c 30000 -o "$work/none.im"
expect 2 'cannot be added to itself' "${collect[@]}" --in-file "$work/new.im" -o "$work/new.im"
expect 1 "$work/nowhere/none.im" "${collect[@]}" -o "$work/nowhere/none.im"
expect 1 'text: not an importance matrix' "${collect[@]}" --in-file "$work/text" -o "$work/none.im"
expect 1 'its paths are e4b, e2b; these are e2b' "${collect[@]}" --path e2b -o "$work/both.im" --resume
expect 1 'its pieces have 32 tokens, these 16' "${collect[@]}" -c 16 -o "$work/new.im" --resume
expect 1 'its text has 3 pieces, this one 2' "${collect[@]}" --chunks 2 -o "$work/new.im" --resume
expect 1 'a .dat holds means only' "${collect[@]}" -o "$work/one.dat" --resume
[ ! -e "$work/none.im" ] || fail 'an importance matrix of nothing'

# Ctrl-C: what was read is kept. Progress is shown from the first piece on.
seq 1 60000 >"$work/text"
collect=(imatrix -m "$model" -f "$work/text" -c 32 -o "$work/cut.im" --resume)
count=$((count + 1))
"$interrupt" tokens/s "$pleiad" "${collect[@]}" >"$work/out" 2>"$work/err"
rc=$?
[ "$rc" = 130 ] && grep -qE 'stopped after [1-9][0-9]* of [0-9]+ pieces; .* --resume goes on' "$work/err" ||
    fail 'interrupted imatrix'
works imatrix --in-file "$work/cut.im" -o "$work/sum.im"
expect 1 'this one 5' "${collect[@]}" --chunks 5

echo "$count runs"
exit $failed
