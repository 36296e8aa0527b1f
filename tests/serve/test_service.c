/* The service's threads. */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "host/serve/service.h"

static pl_service *service;
static sem_t go, held;
static _Atomic int n_done;

static void begin(void)
{
    pl_service_params params = {.name = "model", .path = "auto", .max_tokens = -1};
    pl_error err = {.status = PL_OK};
    cr_assert_eq(pl_service_create(NULL, NULL, NULL, &params, &service, &err), PL_OK, "%s", err.message);
    sem_init(&go, 0, 0);
    sem_init(&held, 0, 0);
    atomic_store(&n_done, 0);
}

static void done(void *user)
{
    (void)user;
    atomic_fetch_add(&n_done, 1);
}

static void hold(void *user)
{
    (void)user;
    sem_post(&held);
    sem_wait(&go);
    done(NULL);
}

/* Both threads have something to do until `go`. */
static void hold_both(void)
{
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pl_service_work(service, hold, NULL, NULL), PL_OK);
    for (int i = 0; i < 2; i++)
        sem_wait(&held);
}

Test(service, refuses_more_than_it_can_queue)
{
    pl_error err = {.status = PL_OK};
    begin();
    hold_both();
    int n = 0;
    while (pl_service_work(service, done, NULL, &err) == PL_OK)
        n++;
    cr_assert_eq(n, 1024);
    cr_assert_eq(err.status, PL_ERR_BUSY);
    sem_post(&go);
    sem_post(&go);
    pl_service_end(service); /* does all that was taken */
    cr_assert_eq(n_done, 1026);
    pl_service_free(service);
}

Test(service, two_pieces_of_work_at_a_time)
{
    begin();
    hold_both();
    sem_post(&go);
    sem_post(&go);
    pl_service_free(service);
    cr_assert_eq(n_done, 2);
}

Test(service, keeps_its_own_names)
{
    char name[] = "model", path[] = "e4b";
    pl_service_params params = {.name = name, .path = path, .web_page = true};
    cr_assert_eq(pl_service_create(NULL, NULL, NULL, &params, &service, NULL), PL_OK);
    name[0] = path[0] = 'x';
    cr_assert_str_eq(pl_service_parameters(service)->name, "model");
    cr_assert_str_eq(pl_service_parameters(service)->path, "e4b");
    pl_service_free(service);
}

static bool has_route(const char *method, const char *path, int times)
{
    for (const pl_http_route *route = pl_service_routes(service); route->method; route++)
        times -= strcmp(route->method, method) == 0 && strcmp(route->path, path) == 0;
    return times == 0;
}

Test(service, the_page_is_there_where_it_is_wanted)
{
    for (int wanted = 0; wanted < 2; wanted++) {
        pl_service_params params = {.name = "m", .path = "auto", .web_page = wanted};
        cr_assert_eq(pl_service_create(NULL, NULL, NULL, &params, &service, NULL), PL_OK);
        cr_assert(has_route("GET", "/", wanted));
        cr_assert(has_route("GET", "/index.html", wanted));
        cr_assert(has_route("GET", "/health", 1));
        cr_assert(has_route("GET", "/openapi.json", 1));
        cr_assert(has_route("POST", "/v1/chat/completions", 1));
        pl_service_free(service);
    }
}

Test(service, only_these_need_no_key)
{
    static const char *const open[] = {"/", "/health", "/openapi.json", "/ready"};
    pl_service_params params = {.name = "m", .path = "auto"};
    cr_assert_eq(pl_service_create(NULL, NULL, NULL, &params, &service, NULL), PL_OK);
    for (const pl_http_route *route = pl_service_routes(service); route->method; route++) {
        bool listed = false;
        for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
            listed = listed || strcmp(open[i], route->path) == 0;
        cr_assert_eq(route->open, listed, "%s", route->path);
    }
    pl_service_free(service);
}
