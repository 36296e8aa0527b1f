/* Ranks that are threads, on machines that share the disk: what differs between machines is the path they look at. */
#include <pthread.h>

#include "host/base/rng.h"
#include "host/batch/file_sample.h"
#include "host/batch/model_share.h"
#include "tests/batch/local_ranks.h"
#include "tests/unit/scratch.h"

#define RANKS 5
static const int machines[RANKS] = {0, 0, 1, 1, 2};

typedef struct sharer {
    pl_ranks *ranks;
    pthread_t thread;
    const char *path;
    pl_share_how how;
    pl_shared_file file;
    pl_status status;
    pl_error err;
    double shown; /* of rank 0's progress */
} sharer;

static void show(void *user, const char *what, double fraction)
{
    sharer *s = user;
    cr_assert(what && fraction >= s->shown && fraction <= 1);
    s->shown = fraction;
}

static void *share(void *arg)
{
    sharer *s = arg;
    s->status = pl_share_file(s->ranks, s->path, s->how, show, s, &s->file, &s->err);
    return NULL;
}

/* paths: of each machine. */
static void share_all(sharer *s, pl_share_how how, const char *const *paths)
{
    local_net *net = local_net_create(&(local_params){.size = RANKS, .hosts = machines, .delay_s = 2e-3});
    memset(s, 0, RANKS * sizeof *s);
    for (int i = 0; i < RANKS; i++) {
        s[i] = (sharer){.ranks = local_net_rank(net, i), .path = paths[machines[i]], .how = how};
        pthread_create(&s[i].thread, NULL, share, &s[i]);
    }
    for (int i = 0; i < RANKS; i++)
        pthread_join(s[i].thread, NULL);
    local_net_free(net);
}

static void expect_file(const sharer *s, const char *data, size_t n, bool sent)
{
    size_t got;
    cr_assert_eq(s->status, PL_OK, "%s", s->err.message);
    cr_assert_eq(strncmp(s->file.path, "/proc/", 6) == 0, sent, "%s", s->file.path);
    char *text = read_file(s->file.path, &got);
    cr_assert(got == n && memcmp(text, data, n) == 0, "%s", s->file.path);
    free(text);
}

static void close_all(sharer *s)
{
    for (int i = 0; i < RANKS; i++)
        pl_shared_file_close(&s[i].file);
}

static char *bytes(size_t n)
{
    char *data = malloc(n);
    pl_rng rng;
    pl_rng_seed(&rng, n);
    for (size_t i = 0; i < n; i++)
        data[i] = (char)pl_rng_next(&rng);
    return data;
}

Test(model_share, a_machine_without_the_file_is_sent_it)
{
    static const size_t sizes[] = {0, 1, 5000, (8 << 20), (17 << 20) + 3};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        scratch dir;
        sharer s[RANKS];
        char *data = bytes(sizes[k]);
        scratch_open(&dir);
        const char *file = scratch_write(&dir, "model.gguf", data, sizes[k]);
        const char *other = scratch_text(&dir, "other.gguf", "another model");
        const char *paths[] = {file, "/nonexistent/model.gguf", k % 2 ? file : other};
        share_all(s, PL_SHARE_AUTO, paths);
        for (int i = 0; i < RANKS; i++)
            expect_file(&s[i], data, sizes[k], machines[i] == 1 || (machines[i] == 2 && k % 2 == 0));
        cr_assert_str_eq(s[2].file.path, s[3].file.path);
        cr_assert(s[2].file.fd >= 0 && s[3].file.fd < 0 && s[0].file.fd < 0);
        cr_assert(sizes[k] == 0 || s[0].shown == 1);
        close_all(s);
        scratch_close(&dir);
        free(data);
    }
}

Test(model_share, always_and_never)
{
    scratch dir;
    sharer s[RANKS];
    char *data = bytes(100000);
    scratch_open(&dir);
    const char *file = scratch_write(&dir, "model.gguf", data, 100000);
    const char *paths[] = {file, file, file}, *missing[] = {file, file, "/nonexistent"};
    share_all(s, PL_SHARE_ALWAYS, paths);
    for (int i = 0; i < RANKS; i++)
        expect_file(&s[i], data, 100000, machines[i] != 0);
    close_all(s);
    share_all(s, PL_SHARE_NEVER, paths);
    for (int i = 0; i < RANKS; i++)
        expect_file(&s[i], data, 100000, false);
    close_all(s);
    share_all(s, PL_SHARE_NEVER, missing);
    for (int i = 0; i < RANKS; i++)
        expect_failure(s[i].status, PL_ERR_IO, &s[i].err, WORDS("/nonexistent on node2", "--share never"));
    free(data);
    scratch_close(&dir);
}

Test(model_share, folders_are_not_sent)
{
    scratch dir, same, differs;
    sharer s[RANKS];
    scratch *dirs[] = {&dir, &same, &differs};
    for (int i = 0; i < 3; i++) {
        scratch_open(dirs[i]);
        scratch_text(dirs[i], "config.json", "{}");
        scratch_text(dirs[i], "tokenizer.json", i < 2 ? "[1]" : "[2]");
    }
    share_all(s, PL_SHARE_AUTO, (const char *[]){dir.dir, same.dir, same.dir});
    for (int i = 0; i < RANKS; i++)
        cr_assert(s[i].status == PL_OK && strcmp(s[i].file.path, s[i].path) == 0, "%s", s[i].err.message);
    close_all(s);
    share_all(s, PL_SHARE_ALWAYS, (const char *[]){dir.dir, same.dir, differs.dir});
    for (int i = 0; i < RANKS; i++)
        expect_failure(s[i].status, PL_ERR_IO, &s[i].err,
                       WORDS("on node2", "differs from rank 0's", "reachable on each"));
    for (int i = 0; i < 3; i++)
        scratch_close(dirs[i]);
}

Test(model_share, a_file_that_rank_0_does_not_have_is_named_to_all)
{
    sharer s[RANKS];
    const char *paths[] = {"/nonexistent/a.gguf", "/nonexistent/b.gguf", "/dev/null"};
    share_all(s, PL_SHARE_AUTO, paths);
    for (int i = 0; i < RANKS; i++)
        expect_failure(s[i].status, PL_ERR_IO, &s[i].err, WORDS("/nonexistent/a.gguf", "No such file"));
}

Test(model_share, samples_tell_files_apart)
{
    enum { N = 3 << 20 };
    static const size_t places[] = {0, 4095, (1 << 20) - 1, N - 1, N - 4096};
    scratch dir;
    pl_file_sample a, b;
    char *data = bytes(N);
    scratch_open(&dir);
    const char *file = scratch_write(&dir, "a", data, N);
    cr_assert_eq(pl_file_sample_take(file, &a, NULL), PL_OK);
    cr_assert(a.size == N && !a.folder);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        data[places[i]] ^= 1;
        cr_assert_eq(pl_file_sample_take(scratch_write(&dir, "b", data, N), &b, NULL), PL_OK);
        data[places[i]] ^= 1;
        cr_assert_neq(a.hash, b.hash);
    }
    memset(data + (N / 2), 0, 20000);
    cr_assert_eq(pl_file_sample_take(scratch_write(&dir, "b", data, N), &b, NULL), PL_OK);
    cr_assert_neq(a.hash, b.hash, "pages in between");
    free(data);
    scratch_close(&dir);
}

Test(model_share, file_systems_of_the_network_are_known)
{
    cr_assert(pl_is_network_file_system(0x6969) && pl_is_network_file_system((int)0xff534d42) &&
              pl_is_network_file_system(0x0bd00bd0));
    cr_assert(!pl_is_network_file_system(0xef53) && !pl_is_network_file_system(0x01021994) &&
              !pl_is_network_file_system(0x58465342) && !pl_is_network_file_system((int)0x9123683e));
}
