/* Many requests with images and sound: whatever comes between, each is answered as if it were alone. */
#include "tests/engine/served.h"
#include "tests/engine/tiny_media.h"

#include "host/engine/media.h"

#define ANSWER 12

typedef struct serving {
    tiny t;
    pl_scheduler *scheduler;
    crowd crowd;
} serving;

static serving serve(const pl_engine_params *engine, const pl_scheduler_params *params)
{
    serving s = {.t = tiny_open(16, engine ? engine->sessions : 0)};
    pl_error err;
    s.crowd = crowd_open();
    cr_assert_eq(pl_scheduler_create(s.t.f.engine, params, &s.scheduler, &err), PL_OK, "%s", err.message);
    return s;
}

static void end(serving *s)
{
    pl_scheduler_free(s->scheduler);
    tiny_close(&s->t);
}

/* What the request says alone, while its media are there. */
static heard alone(serving *s, const tiny_prompt *p)
{
    served asked;
    heard h = {.n = 0};
    served_init(&asked, &s->crowd, p->ids, p->n, ANSWER);
    answer_alone(s->t.f.session, &asked, NULL, &h);
    served_free(&asked);
    return h;
}

/* Requests with the same image share what is kept of it; the media are gone before anything is answered. */
Test(media_scheduler, shared_image)
{
    serving s = serve(NULL, NULL);
    tiny_prompt p = tiny_prompt_of(&s.t, "two_images", TINY_ROWS), q = p;
    q.ids[q.n - 1] = 77;
    heard want_p = alone(&s, &p), want_q = alone(&s, &q);
    served a, b;
    served_init(&a, &s.crowd, p.ids, p.n, ANSWER);
    served_init(&b, &s.crowd, q.ids, q.n, ANSWER);
    cr_assert_eq(pl_session_truncate(s.t.f.session, 0, NULL), PL_OK);
    served_submit(&a, s.scheduler);
    tiny_prompt text = tiny_prompt_of(&s.t, "text", TINY_ROWS);
    alone(&s, &text); /* the session has other tokens now */
    crowd_wait(&s.crowd, 1);
    served_submit(&b, s.scheduler);
    tiny_prompt_free(&p);
    crowd_wait(&s.crowd, 2);
    expect_same(&a, &want_p, "the first");
    expect_same(&b, &want_q, "the second");
    cr_expect_eq(b.outcome.answer.n_prompt_reused, q.n - 1);
    served_free(&a);
    served_free(&b);
    end(&s);
}

/* Nobody holds them but the requests, and when these are done nobody at all. */
Test(media_scheduler, held_by_requests)
{
    static const char *const names[] = {"image", "audio", "image_audio", "two_images", "two_audios"};
    serving s = serve(NULL, NULL);
    served asked[5];
    heard want[5];
    for (int i = 0; i < 5; i++) {
        tiny_prompt p = tiny_prompt_of(&s.t, names[i], TINY_ROWS);
        want[i] = alone(&s, &p);
        served_init(&asked[i], &s.crowd, p.ids, p.n, ANSWER);
        served_submit(&asked[i], s.scheduler);
        tiny_prompt_free(&p);
    }
    crowd_wait(&s.crowd, 5);
    for (int i = 0; i < 5; i++) {
        expect_same(&asked[i], &want[i], names[i]);
        served_free(&asked[i]);
    }
    tiny_prompt text = tiny_prompt_of(&s.t, "text", TINY_ROWS);
    alone(&s, &text);
    pl_scheduler_free(s.scheduler);
    cr_expect_eq(pl_soft_rows_bytes(s.t.f.engine->soft), 0);
    tiny_close(&s.t);
}

/* Two places for six requests, each more urgent than the one before: who gives way is read again, rows and all. */
Test(media_scheduler, urgent_ones)
{
    pl_scheduler_params params = {.max_running = 2, .no_prefixes = true};
    serving s = serve(NULL, &params);
    served asked[6];
    heard want[6];
    for (int i = 0; i < 6; i++) {
        tiny_prompt p = tiny_prompt_of(&s.t, i % 2 ? "image_audio" : "two_images", TINY_ROWS);
        p.ids[1] = 50 + i;
        want[i] = alone(&s, &p);
        served_init(&asked[i], &s.crowd, p.ids, p.n, ANSWER);
        asked[i].request.priority = i;
        served_submit(&asked[i], s.scheduler);
        tiny_prompt_free(&p);
    }
    crowd_wait(&s.crowd, 6);
    for (int i = 0; i < 6; i++) {
        expect_same(&asked[i], &want[i], "an urgent one");
        served_free(&asked[i]);
    }
    end(&s);
}

static void never(void *user, const pl_outcome *outcome)
{
    (void)user, (void)outcome;
    cr_assert_fail("it was not taken");
}

Test(media_scheduler, gone)
{
    serving s = serve(NULL, NULL);
    served asked;
    pl_error err;
    tiny_prompt p = tiny_prompt_of(&s.t, "image", TINY_ROWS);
    tiny_prompt_free(&p);
    served_init(&asked, &s.crowd, p.ids, p.n, ANSWER);
    asked.request.on_done = never;
    cr_expect_eq(pl_scheduler_submit(s.scheduler, &asked.request, NULL, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "prompt token 6 is 288, which stands for no image or sound that is still there");
    served_free(&asked);
    end(&s);
}

/* Answers of requests whose media are there no more, on paths that change. */
Test(media_scheduler, paths)
{
    serving s = serve(NULL, NULL);
    served asked[4];
    for (int i = 0; i < 4; i++) {
        tiny_prompt p = tiny_prompt_of(&s.t, "image_audio", TINY_ROWS);
        served_init(&asked[i], &s.crowd, p.ids, p.n, ANSWER);
        asked[i].request.path = i < 2 ? "auto" : "mix:widths=64";
        asked[i].request.moves = PL_MOVES_EXACT;
        served_submit(&asked[i], s.scheduler);
        tiny_prompt_free(&p);
    }
    crowd_wait(&s.crowd, 4);
    cr_expect_eq(asked[2].heard.n, ANSWER);
    cr_expect_arr_eq(asked[2].heard.ids, asked[3].heard.ids, ANSWER * sizeof(int32_t));
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(asked[i].status, PL_OK, "%s", asked[i].message);
        served_free(&asked[i]);
    }
    end(&s);
}
