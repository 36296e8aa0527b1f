#include "tests/unit/tokenizer_fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

json_t *fixture_json(const char *path)
{
    json_error_t why;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &why);
    cr_assert(json, "%s: %s", path, why.text);
    return json;
}

pl_tokenizer *fixture_tokenizer(void)
{
    pl_error err;
    pl_tokenizer *tokenizer;
    cr_assert(pl_tokenizer_from_json(SMALL_TOKENIZER, NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    return tokenizer;
}

char *fixture_folder(void)
{
    char *folder = strdup("/tmp/pleiad-test-XXXXXX");
    cr_assert(mkdtemp(folder));
    return folder;
}

void fixture_remove(char *folder)
{
    DIR *dir = opendir(folder);
    cr_assert(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    closedir(dir);
    cr_assert_eq(rmdir(folder), 0);
    free(folder);
}

void fixture_write(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    cr_assert(file);
    cr_assert_eq(fwrite(data, 1, n, file), n);
    cr_assert_eq(fclose(file), 0);
}

static const char *text_of(const json_t *const *names, size_t i)
{
    return json_string_value(names[i]);
}

static bool is_control(const json_t *added)
{
    const char *text = json_string_value(json_object_get(added, "content"));
    return json_is_true(json_object_get(added, "special")) || strcmp(text, "<mask>") == 0 ||
           strncmp(text, "<unused", 7) == 0;
}

static size_t add_text(char *out, const char *text, bool meta_to_space)
{
    size_t n = 0;
    while (*text) {
        if (meta_to_space && strncmp(text, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            text += 3;
        } else {
            out[n++] = *text++;
        }
    }
    return n;
}

fixture_vocabulary fixture_vocabulary_of(const json_t *tokenizer)
{
    json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab"),
           *added = json_object_get(tokenizer, "added_tokens");
    size_t n = json_object_size(vocab), bytes = 0, i;
    const char *key;
    json_t *value, *entry;
    json_array_foreach(added, i, entry)
    {
        if ((size_t)json_integer_value(json_object_get(entry, "id")) >= n)
            n = (size_t)json_integer_value(json_object_get(entry, "id")) + 1;
    }
    const json_t **name = calloc(n, sizeof *name);
    json_t *names = json_array();
    fixture_vocabulary v = {.n = (int32_t)n,
                            .offset = calloc(n + 1, sizeof *v.offset),
                            .score = calloc(n, sizeof *v.score),
                            .kind = calloc(n, sizeof *v.kind)};
    json_object_foreach(vocab, key, value)
    {
        size_t id = (size_t)json_integer_value(value);
        json_array_append_new(names, json_string(key));
        name[id] = json_array_get(names, json_array_size(names) - 1);
        bool byte = strlen(key) == 6 && strncmp(key, "<0x", 3) == 0;
        v.kind[id] = byte ? 6 : 1;
        v.score[id] = byte ? 0 : 494 - (float)id;
        bytes += strlen(key);
    }
    json_array_foreach(added, i, entry)
    {
        size_t id = (size_t)json_integer_value(json_object_get(entry, "id"));
        name[id] = json_object_get(entry, "content");
        v.kind[id] = is_control(entry) ? 3 : 4;
        v.score[id] = -1000;
        bytes += json_string_length(name[id]);
    }
    v.text = malloc(bytes);
    for (i = 0; i < n; i++)
        v.offset[i + 1] = v.offset[i] + add_text(v.text + v.offset[i], text_of(name, i), v.kind[i] == 4);
    json_decref(names);
    free(name);
    return v;
}

void fixture_vocabulary_free(fixture_vocabulary *v)
{
    free(v->text);
    free(v->offset);
    free(v->score);
    free(v->kind);
}

pl_vocabulary fixture_view(const fixture_vocabulary *v)
{
    return (pl_vocabulary){.n = v->n, .text = v->text, .offset = v->offset, .score = v->score, .kind = v->kind};
}

void fixture_expect_ids(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special, const json_t *ids,
                        const char *what)
{
    pl_error err;
    pl_ids got = {0};
    cr_assert(pl_tokenizer_encode(tokenizer, text, n, special, &got, &err) == PL_OK, "%s", err.message);
    cr_expect_eq(got.n, json_array_size(ids), "%s: %zu ids, expected %zu", what, got.n, json_array_size(ids));
    for (size_t i = 0; i < got.n && i < json_array_size(ids); i++)
        if (got.v[i] != (int32_t)json_integer_value(json_array_get(ids, i))) {
            cr_expect_fail("%s: id %zu is %d, expected %d", what, i, got.v[i],
                           (int)json_integer_value(json_array_get(ids, i)));
            break;
        }
    pl_ids_free(&got);
}

void fixture_expect_text(const pl_tokenizer *tokenizer, const json_t *ids, bool skip_special, const json_t *text,
                         const char *what)
{
    pl_error err;
    pl_ids in = {0};
    for (size_t i = 0; i < json_array_size(ids); i++)
        cr_assert_eq(pl_ids_push(&in, (int32_t)json_integer_value(json_array_get(ids, i)), &err), PL_OK);
    char *got;
    size_t n;
    cr_assert(pl_tokenizer_decode(tokenizer, in.v, in.n, skip_special, &got, &n, &err) == PL_OK, "%s", err.message);
    cr_expect(n == json_string_length(text) && memcmp(got, json_string_value(text), n + 1) == 0,
              "%s: \"%s\", expected \"%s\"", what, got, json_string_value(text));
    free(got);
    pl_ids_free(&in);
}
