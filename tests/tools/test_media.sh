#!/usr/bin/env bash
# Runs the commands that see and hear, as people do and as they should not.
#
#     test_media.sh PLEIAD TEXT_MODEL HAS_VIDEO     HAS_VIDEO: 1 where pleiad-frames was built
set -u
pleiad=$1
text_model=$2
has_video=$3
here=$(cd "$(dirname "$0")" && pwd)
media=$here/../golden/media
clip=$here/../golden/multimodal/clip0.wav
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work XDG_CACHE_HOME=$work/cache
unset PLEIAD_MODEL NO_COLOR
model=$work/model
failed=0
count=0

fail() {
    printf 'FAILED: %s\n  ended with %s\n' "$1" "${rc-?}"
    sed 's/^/  stdout: /' "$work/out" | head -5
    sed 's/^/  stderr: /' "$work/err" | head -5
    failed=1
}

# run <arguments>: standard input from $work/in, or nothing.
run() {
    count=$((count + 1))
    [ -e "$work/in" ] || : >"$work/in"
    "$pleiad" "$@" <"$work/in" >"$work/out" 2>"$work/err"
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
    [ ! -s "$work/out" ] || fail "$* printed to standard output"
}

works() {
    run "$@"
    [ "$rc" = 0 ] || fail "$*"
}

out() {
    grep -qE -e "$1" "$work/out" || fail "no '$1' in the output"
}

# number <key>: its value in the JSON just printed.
number() {
    grep -oE "\"$1\":-?[0-9.e+-]+" "$work/out" | head -1 | cut -d: -f2
}

# pcm <seconds of silence> <of sound> ...: 16-bit samples at 16 kHz, in whole tenths.
pcm() {
    python3 -c '
import math, struct, sys
sound = b"".join(struct.pack("<h", int(8000 * math.sin(t * 0.2) * math.sin(t * 0.02))) for t in range(1600))
for i, seconds in enumerate(map(float, sys.argv[1:])):
    sys.stdout.buffer.write((sound if i % 2 else bytes(3200)) * round(10 * seconds))
' "$@"
}

# wav <seconds of silence> <of sound> ...
wav() {
    pcm "$@" >"$work/pcm"
    python3 -c '
import sys, wave
with wave.open(sys.argv[2], "wb") as w:
    w.setnchannels(1), w.setsampwidth(2), w.setframerate(16000)
    w.writeframes(open(sys.argv[1], "rb").read())
' "$work/pcm" /dev/stdout
}

python3 "$here/make_media_model.py" "$model" || exit 1
image=$media/rgb16.png
ask=(run -m "$model" --temp 0 -n 4 --image-size 256 --json -p What)

# ---- one answer

works "${ask[@]}"
text=$(number prompt_tokens)
works "${ask[@]}" --image "$image"
cp "$work/out" "$work/seen"
[ "$(number prompt_tokens)" = $((text + 20)) ] || fail 'an image is 16 tokens, what begins and ends it, and newlines'
works "${ask[@]}" --image "$image" --image "$media/cmyk.jpg" --audio "$clip" --image "$media/lossy.webp"
[ "$(number prompt_tokens)" -gt $((text + 60)) ] || fail 'four things shown'
cp "$image" "$work/in"
works "${ask[@]}" --image -
[ "$(sed 's/"seed.*//' "$work/out")" = "$(sed 's/"seed.*//' "$work/seen")" ] || fail 'an image on standard input'
works "${ask[@]}" --no-chat --image "$image"
[ "$(number prompt_tokens)" -lt $((text + 20)) ] || fail 'an image without the chat'
works run -m "$model" --temp 0 -n 4 --json -p What --image "$image"
[ "$(grep -o '"tokens.*"finish' "$work/out")" != "$(grep -o '"tokens.*"finish' "$work/seen")" ] || fail '--image-size'

# ---- what cannot be shown

printf 'no image' >"$work/text.png"
head -c 300 "$media/exif1.jpg" >"$work/cut.jpg"
expect 1 "$work/nothing.png: No such file" run -m "$model" -p x --image "$work/nothing.png"
expect 1 "$work/text.png is not an image" run -m "$model" -p x --image "$work/text.png"
expect 1 "$work/cut.jpg" run -m "$model" -p x --image "$work/cut.jpg"
expect 1 "text.png" run -m "$model" -p x --audio "$work/text.png"
expect 1 'rgb16.png' run -m "$model" -p x --audio "$image"
expect 1 "clip0.wav is not an image" run -m "$model" -p x --image "$clip"
expect 1 "--image $image: the model has nothing to see with; --mmproj" run -m "$text_model" -p x --image "$image"
expect 1 "--audio $clip: the model has nothing to hear with; --mmproj" run -m "$text_model" -p x --audio "$clip"
expect 1 'nothing to hear with' transcribe -m "$text_model" "$clip"
expect 1 'has no vision tower' debug image -m "$text_model" --in "$image" --out "$work/no"
expect 1 "$work/nothing.gguf" run -m "$text_model" -p x --mmproj "$work/nothing.gguf"
expect 1 'text.png' run -m "$text_model" -p x --mmproj "$work/text.png"
expect 1 'is 3[0-9] tokens long; the context holds 32' run -m "$model" -p x -c 32 --image "$image"
expect 1 'would take 12 tokens; the context holds 12' run -m "$model" -p x -c 12 --audio "$clip"
expect 2 'standard input is shown to the model: ask with' run -m "$model" --image -
expect 2 'standard input is shown to the model: .*without --interactive' run -m "$model" -i -p x --image -
expect 2 'can be read once' run -m "$model" -p x --image - --audio -
expect 2 'can be read once' run -m "$model" -f - --image -

# ---- a chat

printf '/image %s\n/audio %s\n/image %s\nWhat?\n/save %s\n/regen\n/clear\n/load %s\n/video\n/quit\n' "$image" "$clip" \
    "$work/nothing" "$work/chat.json" "$work/chat.json" >"$work/in"
works run -m "$model" -i -n 4 --temp 0 --image-size 256 --image "$media/cmyk.jpg"
out 'rgb16.png: 16 tokens, before your next question'
out 'clip0.wav: 12 tokens'
grep -q "$work/nothing: No such file" "$work/err" || fail 'a missing image in a chat'
grep -q '/video takes FILE' "$work/err" || fail '/video without a file'
grep -qE '"content":\[\{"type":"image","file":"[^"]*cmyk.jpg"\},\{"type":"image","file".*\{"type":"audio","file".*"text":"What\?"' \
    "$work/chat.json" || fail 'a saved chat names what was shown'
grep -q "chat.json.*content" "$work/err" || fail 'a chat with images cannot be loaded'
[ "$(grep -c 'first token' "$work/err")" = 2 ] || fail 'two answers about what is shown'

# What is shown first stands first: the session holds it already.
printf '/image %s\nWhat?\n/image %s\n/image %s\nWhat?\n' "$image" "$image" "$media/cmyk.jpg" >"$work/in"
works run -m "$model" -i -n 0 --image-size 256
kept=$(sed -nE 's/.*\(([0-9]+) kept\).*/\1/p' "$work/err")
[ "${kept:-0}" -gt 20 ] || fail "two images in their order: ${kept:-0} tokens kept"

# ---- video

if [ "$has_video" = 1 ]; then
    works "${ask[@]}" --video "$media/clip.mp4" -v
    grep -q 'clip.mp4: 2 frames, 2.0 s of sound' "$work/err" || fail 'frames and sound of a video'
    works "${ask[@]}" --video "$media/clip.mp4" --fps 4 --max-frames 5 -v
    grep -q 'clip.mp4: 5 frames' "$work/err" || fail '--max-frames'
    works "${ask[@]}" --video "$media/silent.mkv" -v
    grep -q 'silent.mkv: [1-9][0-9]* frames*, 0.0 s of sound' "$work/err" || fail 'a video without sound'
    expect 1 'a frame takes 28 tokens, and there is room for [0-9]+ of them, not 200: --max-frames' \
        run -m "$model" -p x --video "$media/clip.mp4" --max-frames 200
    expect 1 'text.png' run -m "$model" -p x --video "$work/text.png"
    works transcribe -m "$model" "$media/sound.m4a" --json
    [ "$(number duration | cut -c1-3)" = 2.0 ] || fail 'sound in a container'
else
    expect 1 'pleiad-frames' run -m "$model" -p x --video "$media/clip.mp4"
fi
expect 2 'takes a file, not standard input' run -m "$model" -p x --video -

# ---- transcribe

wav 0.5 6 1 8 1 12 1 9.5 1 7 >"$work/long.wav"
works transcribe -m "$model" "$clip"
[ "$(wc -l <"$work/out")" = 1 ] || fail 'one clip, one line'
cp "$work/out" "$work/said"
grep -qE '1.0 s of sound in .* times as fast' "$work/err" || fail 'how fast it was'
cp "$clip" "$work/in"
works transcribe -m "$model" -q -
cmp -s "$work/out" "$work/said" || fail 'sound on standard input'
[ ! -s "$work/err" ] || fail '--quiet speaks'
works transcribe -m "$model" "$clip" -o "$work/written"
[ ! -s "$work/out" ] && cmp -s "$work/written" "$work/said" || fail '-o'
works transcribe -m "$model" "$work/long.wav" --format json -l de-AT
out '^\{"task":"transcribe","language":"german","duration":47,"text":".*"segments":\[\{"id":0,"start":0,"end":[0-9.]+,"text":'
works transcribe -m "$model" "$work/long.wav" --format vtt
[ "$(head -1 "$work/out")" = WEBVTT ] || fail 'WebVTT'
[ "$(grep -c -e '-->' "$work/out")" -ge 5 ] || fail 'subtitles of ten seconds'
works transcribe -m "$model" "$work/long.wav" --clip 15 --json
[ "$(grep -o '"start"' "$work/out" | wc -l)" = 4 ] || fail 'clips of fifteen seconds'
works transcribe -m "$model" "$work/long.wav" --format srt --translate en --prompt 'Pleiad'
out '^00:00:00,000 --> 00:00:'

printf '' >"$work/empty.wav"
expect 1 "$work/nothing.wav: No such file" transcribe -m "$model" "$work/nothing.wav"
expect 1 'text.png' transcribe -m "$model" "$work/text.png"
expect 1 'empty.wav' transcribe -m "$model" "$work/empty.wav"
expect 2 "--language takes a language, by its code .*not 'klingon'" transcribe -m "$model" "$clip" -l klingon
expect 2 '--translate takes a language' transcribe -m "$model" "$clip" --translate xx
expect 2 '--live reads standard input' transcribe -m "$model" "$clip" --live
expect 2 '--clip takes 0, or 1 to 30' transcribe -m "$model" "$clip" --clip 0.5
expect 2 '--json and --format say two things' transcribe -m "$model" "$clip" --json --format srt
expect 1 "$work/no/such" transcribe -m "$model" "$clip" -o "$work/no/such"
printf 'older' >"$work/kept"
expect 1 'not sound|text.png' transcribe -m "$model" "$work/text.png" -o "$work/kept"
[ "$(cat "$work/kept")" = older ] || fail 'what was there is gone'

# ---- live

pcm 1 2 1 3 1 >"$work/in"
works transcribe -m "$model" --live --json -
[ "$(wc -l <"$work/out")" = 2 ] || fail 'two sentences, two lines'
out '^\{"start":0\.[67][0-9]*,"end":3\.[0-9]+,"text":".*","first_token_s":[0-9.e-]+,"delay_s":[0-9.e-]+\}$'
grep -q 'listening; Ctrl-C ends it' "$work/err" || fail 'that it listens'
pcm 0 35 >"$work/in"
works transcribe -m "$model" --live --json -
[ "$(wc -l <"$work/out")" = 2 ] || fail 'speech without a pause is cut'
pcm 3 >"$work/in"
works transcribe -m "$model" --live -
[ ! -s "$work/out" ] || fail 'silence says something'
printf 'abc' >"$work/in"
works transcribe -m "$model" --live -

# ---- parts on their own

works debug image -m "$model" --in "$image" --image-size 256 --out "$work/image.safetensors"
grep -aqE '"input":\{"dtype":"F32","shape":\[3,256,256\]' "$work/image.safetensors" || fail 'the image'
grep -aqE '"soft":\{"dtype":"F32","shape":\[16,64\]' "$work/image.safetensors" || fail 'its rows'
grep -aqE '"tower":\{"dtype":"F32","shape":\[16,2048\]' "$work/image.safetensors" || fail "the tower's output"
works debug audio -m "$model" --in "$clip" --out "$work/audio.safetensors" --all-tensors
grep -aqE '"input":\{"dtype":"F32","shape":\[97,128\]' "$work/audio.safetensors" || fail 'the features'
grep -aqE '"soft":\{"dtype":"F32","shape":\[7,64\]' "$work/audio.safetensors" || fail 'the rows of a clip'
grep -aq 'lconv1d' "$work/audio.safetensors" || fail '--all-tensors'
works debug audio -m "$model" --in "$work/long.wav" --out "$work/long.safetensors"
grep -aqE '"input":\{"dtype":"F32","shape":\[2997,128\]' "$work/long.safetensors" || fail 'the first 30 seconds'
expect 1 'text.png' debug audio -m "$model" --in "$work/text.png" --out "$work/no"
[ ! -e "$work/no" ] || fail 'a file of nothing'

works inspect "$model"
out '^ *vision .* an image is 768 x 768 pixels and 16 tokens'
out '^ *audio .* 12 tokens'
works inspect "$model" --json
out '"towers":\{"vision":\{"bytes":[1-9][0-9]*,"tokens":16\},"audio":\{"bytes":[1-9][0-9]*,"tokens":12\}\}'

echo "$count runs"
exit $failed
