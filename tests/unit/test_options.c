#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/options_table.h"

#define MAX_ARGS 24

/* Splits a command line at its blanks ('~' in it stands for a blank within an argument). */
static pl_status parse(const char *line, pl_options *out, pl_error *err)
{
    static char text[512];
    static char *argv[MAX_ARGS];
    int argc = 0;
    snprintf(text, sizeof text, "pleiad %s", line);
    for (char *word = strtok(text, " "); word && argc < MAX_ARGS - 1; word = strtok(NULL, " ")) {
        for (char *p = word; *p; p++)
            *p = *p == '~' ? ' ' : *p;
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return pl_options_parse(argc, argv, out, err);
}

static pl_options parsed(const char *line)
{
    pl_options options;
    pl_error err = {0};
    unsetenv("PLEIAD_MODEL");
    cr_assert_eq(parse(line, &options, &err), PL_OK, "%s: %s", line, err.message);
    return options;
}

static void fails(const char *line, const char *message)
{
    pl_options options = {.n_predict = 12345};
    pl_error err = {0};
    unsetenv("PLEIAD_MODEL");
    cr_assert_eq(parse(line, &options, &err), PL_ERR_ARGUMENT, "accepted: %s", line);
    cr_assert_str_eq(err.message, message, "%s: %s", line, err.message);
    cr_assert_eq(options.n_predict, 12345, "written in spite of the error");
}

Test(options, defaults)
{
    pl_options o = parsed("run -m model.gguf");
    cr_assert_eq(o.command, PL_COMMAND_RUN);
    cr_assert_str_eq(o.model, "model.gguf");
    cr_assert_null(o.prompt);
    cr_assert_null(o.path);
    cr_assert_eq(o.n_predict, -1);
    cr_assert_eq(o.n_context, 0);
    cr_assert_eq(o.seed, -1);
    cr_assert_eq(o.switch_mode, PL_SWITCH_EXACT);
    cr_assert_eq(o.color, PL_COLOR_AUTO);
    cr_assert_float_eq(o.sampling.temperature, 1, 0);
    cr_assert_eq(o.sampling.top_k, 64);
    cr_assert_float_eq(o.sampling.top_p, 0.95f, 0);
    cr_assert_float_eq(o.sampling.dry_base, 1.75f, 0);
    cr_assert_eq(o.sampling.penalty_last_n, 64);
    cr_assert_eq(o.sampling.dry_last_n, -1);
    cr_assert_null(o.sampling.dry_breakers);
    for (int i = 0; i < PL_SAMPLER_STEPS; i++)
        cr_assert_eq(o.sampling.order[i], i + 1 < PL_SAMPLER_STEPS ? (pl_sampler_step)(i + 1) : PL_SAMPLER_END);
    pl_options_free(&o);
}

Test(options, spellings_of_values)
{
    pl_options o = parsed("run -m x -n -1 -t2 --temp=0.5 --top-k 7 --presence-penalty -.5 -s -1 -sys be~brief -p -x");
    cr_assert_eq(o.n_predict, -1);
    cr_assert_eq(o.n_threads, 2);
    cr_assert_float_eq(o.sampling.temperature, 0.5f, 0);
    cr_assert_eq(o.sampling.top_k, 7);
    cr_assert_float_eq(o.sampling.presence_penalty, -0.5f, 0);
    cr_assert_str_eq(o.system, "be brief");
    cr_assert_str_eq(o.prompt, "-x");
    pl_options_free(&o);

    o = parsed("run --model=a=b --n-predict 5 -no-cnv --prompt= --ignore-eos --no-pin -v");
    cr_assert_str_eq(o.model, "a=b");
    cr_assert_eq(o.n_predict, 5);
    cr_assert(o.no_chat && o.ignore_eos && o.no_pin && o.verbose && !o.quiet);
    cr_assert_str_eq(o.prompt, "");
    pl_options_free(&o);

    o = parsed("run -m x -n 3 -n 4 -s 9223372036854775807");
    cr_assert_eq(o.n_predict, 4, "the last one counts");
    cr_assert_eq(o.seed, INT64_MAX);
    pl_options_free(&o);

    o = parsed("inspect -- -m");
    cr_assert_str_eq(o.model, "-m");
    pl_options_free(&o);
}

Test(options, lists)
{
    pl_options o = parsed("run -m x -r a --stop b --reverse-prompt c --logit-bias 7-inf --logit-bias 8+1.5 "
                          "--logit-bias 9-2 --dry-sequence-breaker ; --samplers top_k;temperature");
    cr_assert_eq(o.stop.n, 3);
    cr_assert_str_eq(o.stop.items[2], "c");
    cr_assert_eq(o.sampling.n_bias, 3);
    cr_assert_eq(o.sampling.bias[0].id, 7);
    cr_assert(isinf(o.sampling.bias[0].bias) && o.sampling.bias[0].bias < 0);
    cr_assert_float_eq(o.sampling.bias[1].bias, 1.5f, 0);
    cr_assert_float_eq(o.sampling.bias[2].bias, -2.0f, 0);
    cr_assert_eq(o.sampling.n_dry_breakers, 1);
    cr_assert_str_eq(o.sampling.dry_breakers[0], ";");
    cr_assert_eq(o.sampling.order[0], PL_SAMPLER_TOP_K);
    cr_assert_eq(o.sampling.order[1], PL_SAMPLER_TEMPERATURE);
    cr_assert_eq(o.sampling.order[2], PL_SAMPLER_END);
    pl_options_free(&o);
}

Test(options, the_same_letter_means_other_things_to_bench)
{
    pl_options o = parsed("bench -m x -p 1,22,333 -n 0 -n 64 -r 3 --path e4b --path e2b -o csv");
    cr_assert_eq(o.bench_prompts.n, 3);
    cr_assert_eq(o.bench_prompts.items[2], 333);
    cr_assert_eq(o.bench_predicts.n, 2);
    cr_assert_eq(o.bench_predicts.items[1], 64);
    cr_assert_eq(o.repetitions, 3);
    cr_assert_eq(o.paths.n, 2);
    cr_assert_eq(o.bench_threads.n, 1);
    cr_assert_eq(o.bench_output, PL_BENCH_CSV);
    pl_options_free(&o);
}

Test(options, debug_commands)
{
    pl_options o = parsed("debug tokenize -m x --chat --bos --no-special");
    cr_assert_eq(o.command, PL_COMMAND_DEBUG_TOKENIZE);
    cr_assert(o.debug_chat && o.debug_bos && o.debug_no_special);
    pl_options_free(&o);

    o = parsed("debug logits -m x --ids i --out o --switch 4:e2b --switch 9:mix:widths=512 --chunk 3 --backend cuda "
               "--all-tensors");
    cr_assert_eq(o.command, PL_COMMAND_DEBUG_LOGITS);
    cr_assert_eq(o.switches.n, 2);
    cr_assert_eq(o.switches.items[1].at, 9);
    cr_assert_str_eq(o.switches.items[1].path, "mix:widths=512");
    cr_assert_eq(o.backend, PL_BACKEND_CUDA);
    cr_assert_eq(o.chunk, 3);
    pl_options_free(&o);
}

Test(options, cards)
{
    pl_options o = parsed("run -m x");
    cr_assert_eq(o.backend, PL_BACKEND_AUTO);
    cr_assert_eq(o.device, 0);
    cr_assert_eq(o.ple, PL_PLE_AUTO);
    cr_assert_eq(o.n_gpu_layers, -1);
    cr_assert_null(o.trace);
    pl_options_free(&o);

    o = parsed("bench -m x --backend cuda -dev 2 --ple pinned --trace t.json -ngl 99");
    cr_assert_eq(o.backend, PL_BACKEND_CUDA);
    cr_assert_eq(o.device, 2);
    cr_assert_eq(o.ple, PL_PLE_PINNED);
    cr_assert_eq(o.n_gpu_layers, 99);
    cr_assert_str_eq(o.trace, "t.json");
    pl_options_free(&o);

    static const char *const computing[] = {"run -m x", "bench -m x", "eval -m x -f t", "imatrix -m x -f t -o o",
                                            "debug logits -m x --ids i --out o"};
    for (size_t i = 0; i < sizeof computing / sizeof *computing; i++) {
        char line[128];
        snprintf(line, sizeof line, "%s --backend cpu --main-gpu 1 --ple disk --gpu-layers 0", computing[i]);
        o = parsed(line);
        cr_assert_eq(o.backend, PL_BACKEND_CPU, "%s", line);
        cr_assert_eq(o.device, 1, "%s", line);
        cr_assert_eq(o.ple, PL_PLE_DISK, "%s", line);
        cr_assert_eq(o.n_gpu_layers, 0, "%s", line);
        pl_options_free(&o);
    }

    /* In the order of their enums. */
    for (pl_ple_placement ple = PL_PLE_AUTO; ple <= PL_PLE_DISK; ple++) {
        char line[64];
        snprintf(line, sizeof line, "run -m x --ple %s", pl_ple_placement_name(ple));
        o = parsed(line);
        cr_assert_eq(o.ple, (int32_t)ple, "%s", line);
        pl_options_free(&o);
    }

    o = parsed("inspect --list-devices");
    cr_assert(o.list_devices && !o.model);
    pl_options_free(&o);
    o = parsed("inspect x --card-memory 6GiB");
    cr_assert_eq(o.card_memory, (int64_t)6 << 30);
    pl_options_free(&o);
    fails("run -m x --backend vulkan", "--backend takes one of auto, cpu, cuda, not 'vulkan'");
    fails("run -m x --ple ram", "--ple takes one of auto, vram, pinned, host, disk, not 'ram'; did you mean vram?");
    fails("run -m x --device 16", "--device takes a whole number from 0 to 15, not '16'");
    fails("run -m x -dev CUDA0", "--device takes a whole number from 0 to 15, not 'CUDA0'");
    fails("run -m x --list-devices", "--list-devices is an option of 'inspect', not of 'run'");
    fails("eval -m x -f t --trace t.json", "--trace is an option of 'run', not of 'eval'");
    fails("inspect x --card-memory big", "--card-memory takes a size such as 3GB, 2900MB or 2.5GiB, not 'big'");
}

static void gives_help(const char *line, pl_command topic)
{
    pl_options o = parsed(line);
    cr_assert_eq(o.command, PL_COMMAND_HELP, "%s", line);
    cr_assert_eq(o.topic, topic, "%s: %d", line, (int)o.topic);
    pl_options_free(&o);
}

/* --cache-type, or llama.cpp's two, which have to agree. */
Test(options, types_of_keys_and_values)
{
    static const struct {
        const char *line;
        pl_cache_type type;
    } lines[] = {
        {"run -m x", PL_CACHE_F32},
        {"run -m x --cache-type f16", PL_CACHE_F16},
        {"inspect x --cache-type q8_0", PL_CACHE_Q8_0},
        {"serve -m x -ctk q8_0 -ctv q8_0", PL_CACHE_Q8_0},
        {"inspect x -ctk q8_0", PL_CACHE_Q8_0},
        {"bench -m x -ctk f16", PL_CACHE_F16},
        {"eval -m x -f t --cache-type-v q8_0", PL_CACHE_Q8_0},
        {"run -m x --cache-type f16 -ctk f16", PL_CACHE_F16},
        {"run -m x -ctk auto --cache-type q8_0", PL_CACHE_Q8_0},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        pl_options o = parsed(lines[i].line);
        cr_assert_eq(o.cache_type, (int32_t)lines[i].type, "%s", lines[i].line);
        pl_options_free(&o);
    }
    static const char differ[] =
        "--cache-type, --cache-type-k and --cache-type-v differ, but keys and values have one type";
    fails("run -m x -ctk q8_0 -ctv f16", differ);
    fails("run -m x --cache-type f32 -ctv f16", differ);
    fails("run -m x --cache-type q4_0", "--cache-type takes one of f32, f16, q8_0, not 'q4_0'; did you mean q8_0?");
}

Test(options, what_is_shown_keeps_its_order)
{
    static const char *const kinds[] = {"image", "audio", "image", "video"}, *const files[] = {"a", "b", "-", "c"};
    pl_options o = parsed("run -m x --image a --audio b --image - --video c --fps .5 --image-size 512 -mm p");
    cr_assert_eq(o.shown.n, 4);
    for (size_t i = 0; i < 4; i++) {
        cr_expect_str_eq(o.shown.items[i].kind, kinds[i]);
        cr_expect_str_eq(o.shown.items[i].file, files[i]);
    }
    cr_expect(o.fps == 0.5F && o.max_frames == 0 && o.image_size == 2 && o.keep_towers == 300);
    cr_expect_str_eq(o.mmproj, "p");
    pl_options_free(&o);
    fails("run -m x --image", "--image needs a value (FILE)");
    fails("run -m x --image-size 384", "--image-size takes one of auto, 256, 512, 768, not '384'");
    fails("run -m x --fps 0", "--fps takes a number from 0.001 to 60, not '0'");
    fails("bench -m x --image y", "--image is an option of 'run', not of 'bench'");
}

Test(options, transcribing)
{
    pl_options o = parsed("transcribe talk.mp3 -m x --format srt -l de --translate en -o talk.srt");
    cr_expect_str_eq(o.in_file, "talk.mp3");
    cr_expect_str_eq(o.model, "x");
    cr_expect_str_eq(o.out_file, "talk.srt");
    cr_expect(o.text_format == PL_TEXT_SRT && !o.live && o.sampling.temperature == 0);
    pl_options_free(&o);
    o = parsed("transcribe -m x --live -");
    cr_expect(o.live && strcmp(o.in_file, "-") == 0 && o.text_format == PL_TEXT_TXT);
    pl_options_free(&o);
    fails("transcribe -m x", "'transcribe' needs --in FILE: what to read; - is standard input");
    fails("transcribe -m x a --in b", "--in is given twice: 'b' and 'a'");
    fails("transcribe -m x a b", "'transcribe' does not take 'b' here");
    fails("debug image -m x --in y", "'debug image' needs --out FILE: safetensors file to write");
}

Test(options, serving)
{
    pl_options o = parsed("serve -m m.gguf");
    cr_assert_eq(o.command, PL_COMMAND_SERVE);
    cr_assert_str_eq(o.host, "127.0.0.1");
    cr_assert_eq(o.port, 8080);
    cr_assert_eq(o.n_parallel, 64);
    cr_assert_eq(o.kv_tokens, -1);
    cr_assert_eq(o.kv_memory, 0);
    cr_assert_eq(o.max_body, 32 << 20);
    cr_assert_null(o.path);
    cr_assert_null(o.api_key_file);
    cr_assert_float_eq(o.sampling.temperature, 1, 0);
    pl_options_free(&o);
    o = parsed("serve -m m --host ::1 --port 0 -np 8 --path auto --cors https://a.b --cors * --no-webui -a name");
    cr_assert_str_eq(o.host, "::1");
    cr_assert_eq(o.port, 0);
    cr_assert_eq(o.n_parallel, 8);
    cr_assert_str_eq(o.path, "auto");
    cr_assert_eq(o.cors.n, 2);
    cr_assert_str_eq(o.cors.items[1], "*");
    cr_assert(o.no_web);
    cr_assert_str_eq(o.alias, "name");
    pl_options_free(&o);
    o = parsed("serve -m m --max-body 1MB --kv-memory 2.5GiB --temp 0 --drain 2.5");
    cr_assert_eq(o.kv_memory, 2684354560);
    cr_assert_eq(o.max_body, 1000000);
    cr_assert_float_eq(o.sampling.temperature, 0, 0);
    cr_assert_float_eq(o.drain, 2.5, 0);
    pl_options_free(&o);
}

Test(options, batch)
{
    static const struct {
        const char *text;
        float seconds;
    } times[] = {{"90", 90}, {"90s", 90}, {"1.5m", 90}, {"2h", 7200}, {"1h30m", 5400}, {"1d2h3m4s", 93784}};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "batch -m m -i a -o b --deadline %s", times[i].text);
        pl_options o = parsed(line);
        cr_assert_float_eq(o.deadline, times[i].seconds, 0, "%s: %g", line, (double)o.deadline);
        cr_assert_float_eq(o.lost_after, 60, 0);
        cr_assert_str_eq(o.devices, "all");
        cr_assert(!o.path && !o.ordered && !o.overwrite);
        pl_options_free(&o);
    }
    static const char *const none[] = {"soon", "1x", "30m1h", "1h30", "-1m", "1h1h", "m", "0", "1e12"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        char line[64], message[128];
        snprintf(line, sizeof line, "batch -m m -i a -o b --deadline %s", none[i]);
        snprintf(message, sizeof message, "--deadline takes a time such as 90s, 45m, 2.5h or 1h30m, not '%s'", none[i]);
        fails(line, message);
    }
    fails("batch -m m -o b", "'batch' needs --in FILE: the requests, a JSON object a line");
}

Test(options, help_and_version)
{
    gives_help("help", PL_COMMANDS);
    gives_help("--help", PL_COMMANDS);
    gives_help("-h", PL_COMMANDS);
    gives_help("help run", PL_COMMAND_RUN);
    gives_help("run --help", PL_COMMAND_RUN);
    gives_help("run -m x -h", PL_COMMAND_RUN);
    gives_help("help debug", PL_COMMAND_DEBUG);
    gives_help("debug --help", PL_COMMAND_DEBUG);
    gives_help("help debug logits", PL_COMMAND_DEBUG_LOGITS);
    gives_help("debug logits --help", PL_COMMAND_DEBUG_LOGITS);
    gives_help("help --help", PL_COMMAND_HELP);
    pl_options o = parsed("--version");
    cr_assert_eq(o.command, PL_COMMAND_VERSION);
    pl_options_free(&o);
    o = parsed("version");
    cr_assert_eq(o.command, PL_COMMAND_VERSION);
    pl_options_free(&o);
    o = parsed("help --completion zsh");
    cr_assert_eq(o.completion, PL_SHELL_ZSH);
    pl_options_free(&o);
    o = parsed("help");
    cr_assert_eq(o.completion, PL_SHELL_NONE);
    pl_options_free(&o);
}

Test(options, model_from_the_environment)
{
    pl_options o;
    setenv("PLEIAD_MODEL", "from-env", 1);
    cr_assert_eq(parse("run", &o, NULL), PL_OK);
    cr_assert_str_eq(o.model, "from-env");
    pl_options_free(&o);
    cr_assert_eq(parse("inspect given", &o, NULL), PL_OK);
    cr_assert_str_eq(o.model, "given");
    pl_options_free(&o);
}

Test(options, errors_name_what_is_allowed)
{
    fails("run --tmep 1", "unknown option --tmep; did you mean --temp?");
    fails("run -temp 1", "unknown option -temp; did you mean --temp?");
    fails("run --xyzzyplugh=1", "unknown option --xyzzyplugh; 'pleiad help run' lists them");
    fails("run -k 1", "unknown option -k; 'pleiad help run' lists them");
    fails("run -vq", "unknown option -vq; 'pleiad help run' lists them");
    fails("run --tensors", "--tensors is an option of 'inspect', not of 'run'");
    fails("run -m", "-m/--model needs a value (PATH)");
    fails("run --temp", "--temp needs a number from 0 to 100");
    fails("run --json=1", "--json takes no value, not '1'");
    fails("run --color alwys", "--color takes one of auto, always, never, not 'alwys'; did you mean always?");
    fails("run --samplers top_k;top_k",
          "--samplers takes some of penalties, dry, top_k, typ_p, top_p, min_p, temperature, each once, joined by "
          "';', not 'top_k;top_k'");
    fails("run --logit-bias -3+1",
          "--logit-bias takes a token id and what to add to its logit, as in 108-1.5, 108+2 or 108-inf, not '-3+1'");
    fails("debug logits --switch 5:a --switch 5:b",
          "--switch takes a position and a path, as in 20:e2b, in rising order, not '5:b'");
    fails("run -m x hello", "'run' does not take 'hello' here; a prompt goes behind -p");
    fails("run -m x -v -q", "--verbose and --quiet exclude each other");
    fails("inspect a -m b", "--model is given twice: 'b' and 'a'");
    fails("inspect", "'inspect' needs --model PATH or the environment variable PLEIAD_MODEL: GGUF file, or folder with "
                     "config.json, *.safetensors and tokenizer.json");
    fails("", "no command given; 'pleiad help' lists them");
    fails("-m x", "no command before '-m'; 'pleiad help' lists them");
    fails("inspekt", "unknown command 'inspekt'; did you mean inspect?");
    fails("debug", "debug needs one of tokenize, detokenize, logits, image, audio");
    fails("debug tokenise", "debug takes one of tokenize, detokenize, logits, image, audio, not 'tokenise'");
    fails("help debug tokenise", "debug takes one of tokenize, detokenize, logits, image, audio, not 'tokenise'");
    fails("help run fast", "'help run' does not take 'fast' here");
}

Test(options, numbers_are_read_whole)
{
    static const char *const whole[] = {
        "x", "5x", "1.5", "1e2", "0x10", "+", "-", "2147483648", "-2", "99999999999999999999", "~5", "5~", "nan"};
    static const char *const real[] = {"x",   "nan", "inf",   "-inf", "1e400", "-0.1", "100.5", "0x1p3",
                                       "1,5", ".",   "1.5.2", "1e",   "~1",    "1~",   "+-1"};
    char line[64], message[128];
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        char shown[32];
        snprintf(shown, sizeof shown, "%s", whole[i]);
        for (char *p = shown; *p; p++)
            *p = *p == '~' ? ' ' : *p;
        snprintf(line, sizeof line, "run -n %s", whole[i]);
        snprintf(message, sizeof message, "-n/--predict takes a whole number from -1 to 1048576, not '%s'", shown);
        fails(line, message);
    }
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        char shown[32];
        snprintf(shown, sizeof shown, "%s", real[i]);
        for (char *p = shown; *p; p++)
            *p = *p == '~' ? ' ' : *p;
        snprintf(line, sizeof line, "run --temp %s", real[i]);
        snprintf(message, sizeof message, "--temp takes a number from 0 to 100, not '%s'", shown);
        fails(line, message);
    }
    fails("bench -p 1,,2", "-p/--n-prompt takes whole numbers from 0 to 1048576, joined by commas, not '1,,2'");
    fails("bench -p 1,", "-p/--n-prompt takes whole numbers from 0 to 1048576, joined by commas, not '1,'");
    fails("run -s 9223372036854775808", "-s/--seed takes a whole number from -1 up, not '9223372036854775808'");
}

Test(options, table_is_consistent)
{
    for (size_t i = 0; i < pl_option_count; i++) {
        const pl_option *a = &pl_option_table[i];
        cr_assert_gt(strlen(a->help), 0, "%s", a->name);
        cr_assert_eq(a->required & ~a->commands, 0, "%s", a->name);
        cr_assert(a->kind == PL_OPTION_FLAG || a->arg || a->words[0], "%s", a->name);
        for (size_t j = 0; j < i; j++) {
            const pl_option *b = &pl_option_table[j];
            if (!(a->commands & b->commands))
                continue;
            cr_assert_str_neq(a->name, b->name);
            cr_assert(!a->alias || strcmp(a->alias, b->name) != 0, "%s", a->alias);
            cr_assert(!a->letter || a->letter != b->letter, "-%c: --%s and --%s", a->letter, a->name, b->name);
            if (a->kind != PL_OPTION_SHOWN)
                cr_assert_neq(a->offset, b->offset, "--%s and --%s share a field", a->name, b->name);
        }
    }
}

static char *written(void (*write)(FILE *, int), int what)
{
    char *text = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&text, &n);
    cr_assert_not_null(file);
    write(file, what);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(strlen(text), n);
    return text;
}

static void write_help(FILE *file, int topic)
{
    pl_options_write_help(file, (pl_command)topic);
}

static void write_man(FILE *file, int unused)
{
    (void)unused;
    pl_options_write_man(file);
}

static void write_completion(FILE *file, int shell)
{
    pl_options_write_completion(file, (pl_shell)shell);
}

Test(options, help_names_every_option_in_80_columns)
{
    for (int topic = 0; topic <= PL_COMMANDS; topic++) {
        char *text = written(write_help, topic);
        for (size_t i = 0; i < pl_option_count; i++) {
            const pl_option *option = &pl_option_table[i];
            char name[64];
            snprintf(name, sizeof name, "--%s", option->name);
            if (topic != PL_COMMAND_DEBUG && pl_option_belongs(option, (pl_command)topic))
                cr_assert_not_null(strstr(text, name), "help %d lacks %s", topic, name);
        }
        for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
            cr_assert_leq(strcspn(line, "\n"), 80, "%.100s", line);
        free(text);
    }
}

static int count_of(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)) != NULL; text++)
        n++;
    return n;
}

Test(options, man_page_and_completions_hold_every_option)
{
    char *man = written(write_man, 0);
    cr_assert_eq(strncmp(man, ".TH PLEIAD 1 ", 13), 0);
    cr_assert_eq(count_of(man, "\n.SS "), PL_COMMANDS);
    for (int shell = PL_SHELL_BASH; shell <= PL_SHELL_FISH; shell++) {
        char *script = written(write_completion, shell);
        for (size_t i = 0; i < pl_option_count; i++) {
            char name[64];
            snprintf(name, sizeof name, shell == PL_SHELL_FISH ? " -l %s" : "--%s", pl_option_table[i].name);
            cr_assert_not_null(strstr(script, name), "shell %d lacks %s", shell, name);
        }
        free(script);
    }
    free(man);
}

Test(options, cache_folder)
{
    char *dir;
    pl_error err;
    setenv("HOME", "/home/someone", 1);
    setenv("XDG_CACHE_HOME", "/var/cache/x", 1);
    cr_assert_eq(pl_cache_dir(&dir, &err), PL_OK);
    cr_assert_str_eq(dir, "/var/cache/x/pleiad");
    free(dir);
    setenv("XDG_CACHE_HOME", "relative", 1);
    cr_assert_eq(pl_cache_dir(&dir, &err), PL_OK);
    cr_assert_str_eq(dir, "/home/someone/.cache/pleiad");
    free(dir);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    cr_assert_eq(pl_cache_dir(&dir, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "XDG_CACHE_HOME"));
}

Test(options, color)
{
    pl_options o = parsed("help --color always");
    int null = open("/dev/null", O_WRONLY);
    cr_assert(pl_options_color(&o, null));
    o.color = PL_COLOR_AUTO;
    cr_assert_not(pl_options_color(&o, null));
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal >= 0) {
        unsetenv("NO_COLOR");
        cr_assert(pl_options_color(&o, terminal));
        setenv("NO_COLOR", "1", 1);
        cr_assert_not(pl_options_color(&o, terminal));
        o.color = PL_COLOR_NEVER;
        unsetenv("NO_COLOR");
        cr_assert_not(pl_options_color(&o, terminal));
        close(terminal);
    }
    close(null);
    pl_options_free(&o);
}

/* What the help calls the default is what an embedder gets who asks for nothing. */
Test(options, sampling_defaults_are_the_librarys)
{
    pl_options o = parsed("run -m x");
    pl_sampling want = pl_sampling_default();
    cr_expect_eq(o.sampling.temperature, want.temperature);
    cr_expect_eq(o.sampling.top_k, want.top_k);
    cr_expect_eq(o.sampling.top_p, want.top_p);
    cr_expect_eq(o.sampling.min_p, want.min_p);
    cr_expect_eq(o.sampling.typical_p, want.typical_p);
    cr_expect_eq(o.sampling.repeat_penalty, want.repeat_penalty);
    cr_expect_eq(o.sampling.presence_penalty, want.presence_penalty);
    cr_expect_eq(o.sampling.frequency_penalty, want.frequency_penalty);
    cr_expect_eq(o.sampling.penalty_last_n, want.penalty_last_n);
    cr_expect_eq(o.sampling.dry_multiplier, want.dry_multiplier);
    cr_expect_eq(o.sampling.dry_base, want.dry_base);
    cr_expect_eq(o.sampling.dry_allowed_length, want.dry_allowed_length);
    cr_expect_eq(o.sampling.dry_last_n, want.dry_last_n);
    cr_expect_arr_eq(o.sampling.order, want.order, sizeof want.order);
    pl_options_free(&o);
}
