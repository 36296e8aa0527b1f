/* Files that are not what a tokenizer can be read from, one fault at a time; and damaged caches. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/base/mapfile.h"
#include "host/text/tokenizer_parts.h"
#include "tests/unit/tokenizer_fixture.h"

/* ---- tokenizer.json ---------------------------------------------------------------------------- */

/* Replaces what is at path ("model.merges.3"), or takes it away (value NULL). */
static void change(json_t *root, const char *path, const char *value)
{
    char buffer[128];
    snprintf(buffer, sizeof buffer, "%s", path);
    char *last = strrchr(buffer, '.'), *save = NULL;
    json_t *at = root, *new_value = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    cr_assert(!value || new_value, "%s", value);
    if (last)
        *last++ = '\0';
    else
        last = buffer;
    if (last != buffer)
        for (char *key = strtok_r(buffer, ".", &save); key; key = strtok_r(NULL, ".", &save))
            at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    cr_assert(at, "%s", path);
    if (json_is_array(at))
        cr_assert_eq(json_array_set_new(at, (size_t)atoi(last), new_value), 0);
    else if (new_value)
        cr_assert_eq(json_object_set_new(at, last, new_value), 0);
    else
        cr_assert_eq(json_object_del(at, last), 0, "%s", path);
}

static void expect_refusal(const char *path, pl_status status, const char *part, const char *what)
{
    pl_error err = {0};
    pl_tokenizer *tokenizer = NULL;
    cr_expect_eq(pl_tokenizer_from_json(path, NULL, &tokenizer, &err), status, "%s: %s", what, err.message);
    cr_expect(strstr(err.message, part), "%s: \"%s\" does not say \"%s\"", what, err.message, part);
    cr_expect(strstr(err.message, path), "%s: \"%s\" does not name the file", what, err.message);
    cr_expect_null(tokenizer);
}

static const struct {
    const char *path, *value;
    pl_status status;
    const char *part;
} faults[] = {
    {"model", NULL, PL_ERR_FORMAT, "model is missing"},
    {"model", "[]", PL_ERR_FORMAT, "model is missing or not an object"},
    {"model.type", "\"Unigram\"", PL_ERR_UNSUPPORTED, "model.type is \"Unigram\""},
    {"model.type", NULL, PL_ERR_UNSUPPORTED, "model.type"},
    {"model.byte_fallback", "false", PL_ERR_UNSUPPORTED, "model.byte_fallback"},
    {"model.ignore_merges", "true", PL_ERR_UNSUPPORTED, "model.ignore_merges"},
    {"model.dropout", "0.1", PL_ERR_UNSUPPORTED, "model.dropout"},
    {"model.end_of_word_suffix", "\"</w>\"", PL_ERR_UNSUPPORTED, "model.end_of_word_suffix"},
    {"model.continuing_subword_prefix", "\"##\"", PL_ERR_UNSUPPORTED, "model.continuing_subword_prefix"},
    {"normalizer", NULL, PL_ERR_UNSUPPORTED, "normalizer"},
    {"normalizer", "{\"type\":\"NFC\"}", PL_ERR_UNSUPPORTED, "normalizer (NFC)"},
    {"normalizer.content", "\"_\"", PL_ERR_UNSUPPORTED, "normalizer (Replace)"},
    {"pre_tokenizer", "{\"type\":\"ByteLevel\"}", PL_ERR_UNSUPPORTED, "pre_tokenizer (ByteLevel)"},
    {"pre_tokenizer.pattern", "{\"Regex\":\"x\"}", PL_ERR_UNSUPPORTED, "pre_tokenizer (Split)"},
    {"decoder", "{\"type\":\"Metaspace\"}", PL_ERR_UNSUPPORTED, "decoder (Metaspace)"},
    {"decoder", "null", PL_ERR_UNSUPPORTED, "decoder"},
    {"decoder.decoders.1", "{\"type\":\"Strip\"}", PL_ERR_UNSUPPORTED, "decoder (Sequence)"},
    {"decoder.decoders.3", "{\"type\":\"Strip\"}", PL_ERR_UNSUPPORTED, ""},
    {"model.vocab", NULL, PL_ERR_FORMAT, "model.vocab"},
    {"model.vocab", "{}", PL_ERR_FORMAT, "model.vocab"},
    {"model.vocab", "[1]", PL_ERR_FORMAT, "model.vocab"},
    {"model.vocab.get", "\"5\"", PL_ERR_FORMAT, "model.vocab[\"get\"] is not an integer"},
    {"model.vocab.get", "5.0", PL_ERR_FORMAT, "model.vocab[\"get\"] is not an integer"},
    {"model.vocab.get", "-1", PL_ERR_FORMAT, "model.vocab[\"get\"] is -1; the ids of 1024 pieces are 0 to 1023"},
    {"model.vocab.get", "1024", PL_ERR_FORMAT, "model.vocab[\"get\"] is 1024"},
    {"model.vocab.get", "9223372036854775807", PL_ERR_FORMAT, "model.vocab[\"get\"] is 9223372036854775807"},
    {"model.vocab.get", "500", PL_ERR_FORMAT, "id 500 is given to"},
    {"model.vocab.get", NULL, PL_ERR_FORMAT, "the ids of 1023 pieces"},
    {"model.vocab.<0x41>", NULL, PL_ERR_FORMAT, "the ids of 1023 pieces"},
    {"model.vocab.", "1024", PL_ERR_FORMAT, "piece 1024 has no text"},
    {"added_tokens", "{}", PL_ERR_FORMAT, "added_tokens is not an array"},
    {"added_tokens.3", "7", PL_ERR_FORMAT, "added_tokens[3].content"},
    {"added_tokens.3.content", "7", PL_ERR_FORMAT, "added_tokens[3].content"},
    {"added_tokens.3.content", "\"\"", PL_ERR_FORMAT, "added_tokens[3].content"},
    {"added_tokens.3.id", "\"3\"", PL_ERR_FORMAT, "added_tokens[3].id"},
    {"added_tokens.3.id", "4", PL_ERR_FORMAT, "added_tokens[3] (\"<unk>\") has id 4, in model.vocab it is 3"},
    {"added_tokens.3.special", "1", PL_ERR_FORMAT, "added_tokens[3].special"},
    {"added_tokens.3.lstrip", "true", PL_ERR_UNSUPPORTED, "added_tokens[3].lstrip"},
    {"added_tokens.3.rstrip", "true", PL_ERR_UNSUPPORTED, "added_tokens[3].rstrip"},
    {"added_tokens.3.single_word", "true", PL_ERR_UNSUPPORTED, "added_tokens[3].single_word"},
    {"added_tokens.3.normalized", "true", PL_ERR_UNSUPPORTED, "added_tokens[3].normalized"},
    {"added_tokens.334.id", "1089", PL_ERR_FORMAT, "has id 1089; the next after the vocabulary is 1087"},
    {"added_tokens.334.id", "-5", PL_ERR_FORMAT, "has id -5"},
    {"added_tokens.334.content", "\"<bos>\"", PL_ERR_FORMAT, "added_tokens[334]"},
    {"added_tokens.334.content", "\"<unused329x>\"", PL_OK, ""},
    {"model.merges", NULL, PL_ERR_FORMAT, "model.merges"},
    {"model.merges", "\"a b\"", PL_ERR_FORMAT, "model.merges"},
    {"model.merges.17", "3", PL_ERR_FORMAT, "model.merges[17] is neither"},
    {"model.merges.17", "[\"a\"]", PL_ERR_FORMAT, "model.merges[17] is neither"},
    {"model.merges.17", "[\"a\", 2]", PL_ERR_FORMAT, "model.merges[17] is neither"},
    {"model.merges.17", "\"ab\"", PL_ERR_FORMAT, "model.merges[17] is neither"},
    {"model.merges.17", "\"a b c\"", PL_ERR_FORMAT, "model.merges[17] is neither"},
    {"model.merges.17", "[\"zqz\", \"a\"]", PL_ERR_FORMAT, "model.merges[17]: \"zqz\" is not in model.vocab"},
    {"model.merges.17", "[\"a\", \"\"]", PL_ERR_FORMAT, "model.merges[17]: \"\" is not in model.vocab"},
    {"model.merges.17", "[\"<bos>\", \"<eos>\"]", PL_ERR_FORMAT,
     "model.merges[17]: the result \"<bos><eos>\" is not in model.vocab"},
    {"model.merges.1890", "[\"l\", \"d\"]", PL_ERR_FORMAT, "listed twice"},
};

Test(tokenizer_files, names_each_fault)
{
    char *folder = fixture_folder(), path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        json_t *json = fixture_json(SMALL_TOKENIZER);
        if (strcmp(faults[i].path, "decoder.decoders.3") == 0)
            json_array_append_new(json_object_get(json_object_get(json, "decoder"), "decoders"), json_null());
        change(json, faults[i].path, faults[i].value);
        cr_assert_eq(json_dump_file(json, path, 0), 0);
        json_decref(json);
        if (faults[i].status != PL_OK) {
            expect_refusal(path, faults[i].status, faults[i].part, faults[i].path);
        } else {
            pl_tokenizer *tokenizer;
            cr_assert_eq(pl_tokenizer_from_json(path, NULL, &tokenizer, NULL), PL_OK);
            pl_tokenizer_free(tokenizer);
        }
    }
    fixture_remove(folder);
}

/* The piece for a byte renamed in the vocabulary: all else still fits. */
Test(tokenizer_files, wants_a_piece_for_each_byte)
{
    char *folder = fixture_folder(), path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    json_t *json = fixture_json(SMALL_TOKENIZER), *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    json_object_set(vocab, "<0x4x>", json_object_get(vocab, "<0x41>"));
    json_object_del(vocab, "<0x41>");
    cr_assert_eq(json_dump_file(json, path, 0), 0);
    json_decref(json);
    expect_refusal(path, PL_ERR_UNSUPPORTED, "no piece for the byte <0x41>", "byte");
    fixture_remove(folder);
}

Test(tokenizer_files, names_broken_json)
{
    char *folder = fixture_folder(), path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    expect_refusal(path, PL_ERR_IO, "", "no such file");
    expect_refusal(folder, PL_ERR_IO, "", "a folder");
    pl_mapfile whole;
    cr_assert_eq(pl_mapfile_open(SMALL_TOKENIZER, &whole, NULL), PL_OK);
    fixture_write(path, "", 0);
    expect_refusal(path, PL_ERR_FORMAT, "line 1", "empty");
    for (size_t n = 1; n < whole.size - 2; n += 1 + n / 3) {
        fixture_write(path, whole.data, n);
        expect_refusal(path, PL_ERR_FORMAT, "line", "cut");
    }
    static const char *const text[] = {"[]",   "{\"a\":\"\\ud800\"}", "{\"a\":\"\\u0000\"}", "{\"a\":1,\"a\":2}",
                                       "\x80", "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        fixture_write(path, text[i], strlen(text[i]));
        expect_refusal(path, PL_ERR_FORMAT, i ? "line 1" : "not a JSON object", text[i]);
    }
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    fixture_write(path, deep, 100000);
    expect_refusal(path, PL_ERR_FORMAT, "depth", "deep");
    free(deep);
    pl_mapfile_close(&whole);
    fixture_remove(folder);
}

/* ---- vocabularies ------------------------------------------------------------------------------ */

static void expect_vocabulary(const fixture_vocabulary *v, pl_status status, const char *part)
{
    pl_vocabulary view = fixture_view(v);
    pl_error err = {0};
    pl_tokenizer *tokenizer = NULL;
    cr_expect_eq(pl_tokenizer_from_vocabulary(&view, "some.gguf", NULL, &tokenizer, &err), status, "%s: %s", part,
                 err.message);
    cr_expect(strstr(err.message, part) && (status == PL_OK || strstr(err.message, "some.gguf: ")),
              "\"%s\" does not say \"%s\"", err.message, part);
    pl_tokenizer_free(tokenizer);
}

static void expect_patched(fixture_vocabulary *v, int32_t id, const char *text, const char *part)
{
    char *at = v->text + v->offset[id], old[16];
    size_t n = (size_t)(v->offset[id + 1] - v->offset[id]);
    cr_assert(n <= sizeof old && strlen(text) == n);
    memcpy(old, at, n);
    memcpy(at, text, n);
    expect_vocabulary(v, PL_ERR_FORMAT, part);
    memcpy(at, old, n);
}

Test(tokenizer_files, names_each_fault_of_a_vocabulary)
{
    json_t *json = fixture_json(SMALL_TOKENIZER);
    fixture_vocabulary v = fixture_vocabulary_of(json);
    int32_t n = v.n, kind = v.kind[500];
    v.n = 0;
    expect_vocabulary(&v, PL_ERR_FORMAT, "empty");
    v.n = -1;
    expect_vocabulary(&v, PL_ERR_FORMAT, "empty");
    v.n = n;
    v.kind[500] = 0;
    expect_vocabulary(&v, PL_ERR_FORMAT, "piece 500 is of kind 0");
    v.kind[500] = 7;
    expect_vocabulary(&v, PL_ERR_FORMAT, "piece 500 is of kind 7");
    v.kind[500] = 6;
    expect_vocabulary(&v, PL_ERR_FORMAT, "piece 500 is of kind byte");
    v.kind[500] = 5;
    expect_vocabulary(&v, PL_OK, "");
    v.kind[500] = kind;
    float score = v.score[500];
    v.score[500] = NAN;
    expect_vocabulary(&v, PL_ERR_FORMAT, "score of piece 500");
    v.score[500] = -INFINITY;
    expect_vocabulary(&v, PL_ERR_FORMAT, "score of piece 500");
    v.score[500] = score;
    uint64_t offset = v.offset[500];
    v.offset[500] = v.offset[501] + 1;
    expect_vocabulary(&v, PL_ERR_FORMAT, "piece 500 ends before it starts");
    v.offset[500] = v.offset[501];
    expect_vocabulary(&v, PL_ERR_FORMAT, "piece 500 has no text");
    v.offset[500] = offset;
    expect_patched(&v, 2, "<eos>", "pieces 1 and 2 have the same text");
    expect_patched(&v, 2, "<\xff\xff\xff>", "piece 2 is not valid UTF-8");
    v.kind[238 + 0x41] = 5;
    expect_vocabulary(&v, PL_ERR_UNSUPPORTED, "no piece for the byte <0x41>");
    fixture_vocabulary_free(&v);
    json_decref(json);
}

static void expect_first_merge(const pl_vocabulary *view, const char *folder, int32_t in, int32_t no, bool lower)
{
    pl_tokenizer *tokenizer;
    pl_ids ids = {0};
    cr_assert_eq(pl_tokenizer_from_vocabulary(view, "scored", folder, &tokenizer, NULL), PL_OK);
    cr_assert_eq(pl_tokenizer_encode(tokenizer, "ino", 3, true, &ids, NULL), PL_OK);
    cr_assert_eq(ids.n, 2);
    cr_expect_eq(lower ? ids.v[0] : ids.v[1], lower ? in : no);
    pl_ids_free(&ids);
    pl_tokenizer_free(tokenizer);
}

/* Equal scores: the lower id comes first. "in" and "no" share one; in "ino" either could come first. The cache
 * knows the two vocabularies apart, which differ in one score. */
Test(tokenizer_files, orders_equal_scores_by_id)
{
    json_t *json = fixture_json(SMALL_TOKENIZER);
    fixture_vocabulary v = fixture_vocabulary_of(json);
    pl_tokenizer *small = fixture_tokenizer();
    char *folder = fixture_folder();
    int32_t in = pl_tokenizer_id(small, "in", 2), no = pl_tokenizer_id(small, "no", 2);
    cr_assert(in >= 0 && no > in);
    pl_vocabulary view = fixture_view(&v);
    for (int pass = 0; pass < 2; pass++) {
        v.score[no] = v.score[in];
        expect_first_merge(&view, NULL, in, no, true);
        expect_first_merge(&view, folder, in, no, true);
        v.score[no] += 1;
        expect_first_merge(&view, NULL, in, no, false);
        expect_first_merge(&view, folder, in, no, false);
    }
    fixture_remove(folder);
    pl_tokenizer_free(small);
    fixture_vocabulary_free(&v);
    json_decref(json);
}

/* A slot that no text stands for: not found, not matched, decodes to nothing. */
Test(tokenizer_files, leaves_unused_slots_out)
{
    json_t *json = fixture_json(SMALL_TOKENIZER);
    fixture_vocabulary v = fixture_vocabulary_of(json);
    v.kind[4] = 5; /* <mask> */
    pl_vocabulary view = fixture_view(&v);
    pl_tokenizer *tokenizer;
    pl_ids ids = {0};
    char *text;
    size_t n;
    cr_assert_eq(pl_tokenizer_from_vocabulary(&view, "unused", NULL, &tokenizer, NULL), PL_OK);
    cr_expect_eq(pl_tokenizer_id(tokenizer, "<mask>", 6), -1);
    cr_assert_eq(pl_tokenizer_encode(tokenizer, "<mask>", 6, true, &ids, NULL), PL_OK);
    cr_expect_gt(ids.n, 1);
    cr_assert_eq(pl_tokenizer_decode(tokenizer, (int32_t[]){238 + 0xc3, 4, 238 + 0xa9}, 3, false, &text, &n, NULL),
                 PL_OK);
    cr_expect_str_eq(text, "\xc3\xa9");
    free(text);
    pl_ids_free(&ids);
    pl_tokenizer_free(tokenizer);
    fixture_vocabulary_free(&v);
    json_decref(json);
}

/* ---- cache --------------------------------------------------------------------------------------- */

static void cache_path(const char *folder, char out[512])
{
    DIR *dir = opendir(folder);
    cr_assert(dir);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.') {
            snprintf(out, 512, "%s/%s", folder, entry->d_name);
            files++;
        }
    closedir(dir);
    cr_assert_eq(files, 1);
}

static void load(const char *folder)
{
    pl_error err;
    pl_tokenizer *tokenizer;
    cr_assert(pl_tokenizer_from_json(SMALL_TOKENIZER, folder, &tokenizer, &err) == PL_OK, "%s", err.message);
    pl_ids ids = {0};
    char *text;
    size_t n;
    cr_assert_eq(pl_tokenizer_encode(tokenizer, "get <bos>  it\xff", 14, true, &ids, NULL), PL_OK);
    cr_assert_eq(pl_tokenizer_decode(tokenizer, ids.v, ids.n, true, &text, &n, NULL), PL_OK);
    cr_assert_str_eq(text, "get   it\xef\xbf\xbd");
    free(text);
    pl_ids_free(&ids);
    pl_tokenizer_free(tokenizer);
}

static ino_t inode(const char *path)
{
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    return st.st_ino;
}

/* Puts data in the cache's place and loads: the right result, and a sound file there afterwards. */
static void expect_rewritten(const char *folder, const char *path, const unsigned char *data, size_t n,
                             const pl_mapfile *sound, const char *what)
{
    cr_assert_eq(unlink(path), 0);
    fixture_write(path, data, n);
    load(folder);
    pl_mapfile now;
    cr_assert_eq(pl_mapfile_open(path, &now, NULL), PL_OK);
    cr_expect(now.size == sound->size && memcmp(now.data, sound->data, now.size) == 0, "%s: not written again", what);
    pl_mapfile_close(&now);
}

Test(tokenizer_files, cache_is_used_and_never_trusted)
{
    char *folder = fixture_folder(), path[512];
    load(folder);
    cache_path(folder, path);
    ino_t first = inode(path);
    load(folder);
    cr_expect_eq(inode(path), first, "a sound cache is not written again");

    pl_mapfile sound;
    cr_assert_eq(pl_mapfile_open(path, &sound, NULL), PL_OK);
    unsigned char *bytes = malloc(sound.size + 1);
    memcpy(bytes, sound.data, sound.size);
    for (size_t n = 0; n < sound.size; n += 1 + n / 2)
        expect_rewritten(folder, path, bytes, n, &sound, "cut");
    bytes[sound.size] = 0;
    expect_rewritten(folder, path, bytes, sound.size + 1, &sound, "longer");
    for (size_t i = 0; i < sound.size; i += 1 + i / 4) {
        bytes[i] ^= 0x40;
        expect_rewritten(folder, path, bytes, sound.size, &sound, "flipped");
        bytes[i] ^= 0x40;
    }
    free(bytes);
    pl_mapfile_close(&sound);
    fixture_remove(folder);
}

/* Damage under a checksum that fits: whatever is accepted then must at least stay within its bounds. */
Test(tokenizer_files, cache_with_a_false_checksum_is_harmless)
{
    char *folder = fixture_folder(), path[512];
    load(folder);
    cache_path(folder, path);
    pl_mapfile sound;
    cr_assert_eq(pl_mapfile_open(path, &sound, NULL), PL_OK);
    unsigned char *bytes = malloc(sound.size);
    for (size_t i = 24; i < sound.size; i += 1 + i / 64) {
        memcpy(bytes, sound.data, sound.size);
        bytes[i] ^= i % 2 ? 0xff : 0x01;
        pl_token_tables_seal(bytes);
        cr_assert_eq(unlink(path), 0);
        fixture_write(path, bytes, sound.size);
        pl_tokenizer *tokenizer;
        pl_ids ids = {0};
        char *text;
        size_t n;
        cr_assert_eq(pl_tokenizer_from_json(SMALL_TOKENIZER, folder, &tokenizer, NULL), PL_OK);
        static const char in[] =
            "get <bos> \n\n</td> it\xff \xe4\xb8\x96 thequickbrownfoxjumpsoverthelazydogthequickbrownfox";
        cr_assert_eq(pl_tokenizer_encode(tokenizer, in, sizeof in, true, &ids, NULL), PL_OK);
        cr_assert_eq(pl_tokenizer_decode(tokenizer, ids.v, ids.n, true, &text, &n, NULL), PL_OK);
        free(text);
        pl_ids_free(&ids);
        pl_tokenizer_free(tokenizer);
    }
    free(bytes);
    pl_mapfile_close(&sound);
    fixture_remove(folder);
}

/* Copies a sound image, puts value at `at` (an address inside the sound one), and binds the copy. */
static void expect_unsound(const pl_token_tables *sound, const void *at, const void *value, size_t n, const char *what)
{
    size_t bytes = sound->head->bytes;
    unsigned char *image = malloc(bytes);
    memcpy(image, sound->head, bytes);
    memcpy(image + ((const unsigned char *)at - (const unsigned char *)sound->head), value, n);
    pl_token_tables_seal(image);
    pl_token_tables out;
    cr_expect(!pl_token_tables_bind(image, bytes, sound->head->source, &out), "%s", what);
    free(image);
}

#define EXPECT_UNSOUND(place, wrong) expect_unsound(&t, &(place), &(wrong), sizeof(place), #place)

Test(tokenizer_files, cache_checks_every_number)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    pl_token_tables t = tokenizer->tables, out;
    uint32_t last = 0, slot = 0, pair = 0, byte = t.head->byte_id[0x41];
    while (t.index.slot[slot] == PL_SLOT_EMPTY)
        slot++;
    while (t.pair[pair] == PL_SLOT_EMPTY)
        pair++;
    for (uint32_t i = 0; i < t.head->n_nodes; i++)
        last = t.node[i].child ? i : last;
    pl_token_tables_seal(tokenizer->image);
    cr_assert(pl_token_tables_bind(tokenizer->image, t.head->bytes, t.head->source, &out));
    cr_expect(!pl_token_tables_bind(tokenizer->image, t.head->bytes, (uint64_t[]){1, 2}, &out), "another source");

    uint32_t n = t.head->n_pieces, merges = t.head->n_merges, huge = UINT32_MAX - 1, zero = 0, nodes = t.head->n_nodes,
             again = last;
    uint16_t pages = (uint16_t)t.head->n_pages;
    uint64_t no_piece = n, no_rank = (t.pair[pair] & ~(uint64_t)PL_MAX_MERGES) | merges, empty = PL_SLOT_EMPTY,
             wide = UINT64_MAX;
    uint8_t as_byte = PL_PIECE_BYTE;
    EXPECT_UNSOUND(t.head->version, huge);
    EXPECT_UNSOUND(t.head->byte_order, huge);
    EXPECT_UNSOUND(t.head->n_pieces, zero);
    EXPECT_UNSOUND(t.head->n_pieces, huge);
    EXPECT_UNSOUND(t.head->n_merges, huge);
    EXPECT_UNSOUND(t.head->n_pages, zero);
    EXPECT_UNSOUND(t.head->n_pages, huge);
    EXPECT_UNSOUND(t.head->n_nodes, zero);
    EXPECT_UNSOUND(t.head->n_nodes, huge);
    EXPECT_UNSOUND(t.head->text_bytes, wide);
    EXPECT_UNSOUND(t.head->piece_bits, zero);
    EXPECT_UNSOUND(t.head->pair_bits, huge);
    EXPECT_UNSOUND(t.head->byte_id[7], n);
    EXPECT_UNSOUND(t.head->root['<'], nodes);
    EXPECT_UNSOUND(t.head->page_of[9], pages);
    EXPECT_UNSOUND(t.index.offset[0], n);
    EXPECT_UNSOUND(t.index.offset[5], huge);
    EXPECT_UNSOUND(t.index.offset[500], zero);
    EXPECT_UNSOUND(t.index.offset[n], huge);
    EXPECT_UNSOUND(t.index.slot[slot], no_piece);
    EXPECT_UNSOUND(t.pair[pair], no_rank);
    EXPECT_UNSOUND(t.pair[pair], empty);
    EXPECT_UNSOUND(t.result[3], n);
    EXPECT_UNSOUND(t.page[300], n);
    EXPECT_UNSOUND(t.flags[byte + 256], as_byte);
    EXPECT_UNSOUND(t.node[last].child, again);
    EXPECT_UNSOUND(t.node[last].child, nodes);
    EXPECT_UNSOUND(t.node[last].next, again);
    EXPECT_UNSOUND(t.node[last].next, nodes);
    EXPECT_UNSOUND(t.node[last].id, n);
    pl_tokenizer_free(tokenizer);
}

Test(tokenizer_files, cache_folder_is_made_or_done_without)
{
    char *folder = fixture_folder(), path[512];
    snprintf(path, sizeof path, "%s/a", folder);
    load(path);
    char file[512];
    cache_path(path, file);
    fixture_write(file, "", 0);
    cr_assert_eq(unlink(file), 0);
    cr_assert_eq(rmdir(path), 0);
    fixture_write(path, "", 0); /* a file where the folder should be */
    load(path);
    load("/proc/no/such/place");
    load("");
    fixture_remove(folder);
}
