/* Tokens drawn on the card are those that the host's sampler draws. */
extern "C" {
#include "host/engine/card_draw.h"
#include "host/engine/sampler.h"
}
#include "cuda/draw.h"
#include "tests/cuda/fixture.hpp"

#include <cstring>
#include <memory>

/* ---- random cases -------------------------------------------------------------------------------- */

struct dice {
    pl_rng rng;

    explicit dice(uint64_t seed)
    {
        pl_rng_seed(&rng, seed);
    }
    int below(int n)
    {
        return (int)(pl_rng_next(&rng) % (uint64_t)n);
    }
    float unit()
    {
        return (float)pl_rng_uniform(&rng);
    }
    template <class T, size_t N> T of(const T (&values)[N])
    {
        return values[below(N)];
    }
};

enum shape { SMOOTH, PEAKED, TIED, EQUAL, RISING, NEIGHBOURS, HUGE_ONES, FAR_BELOW, SHAPES };

static float a_logit(dice &d, shape kind, size_t i, size_t n)
{
    switch (kind) {
    case SMOOTH: return 9 * (d.unit() + d.unit() + d.unit() - 1.5f);
    case PEAKED: return i % 1000 == n % 1000 ? 20 + 4 * d.unit() : 12 * d.unit();
    case TIED: return floorf(6 * d.unit()) * (d.below(2) ? 1.0f : -0.0f);
    case EQUAL: return -3.25f;
    case RISING: return (float)i / 300.0f;
    case NEIGHBOURS: return 1.0f + (float)d.below(40) * 0x1p-23f;
    case HUGE_ONES: return d.below(50) ? (d.unit() - 0.5f) * 1e30f : d.below(2) ? 3.4028235e38f : -3.4028235e38f;
    default: return -20 - 30 * d.unit() + (i == n / 2 ? 45.0f : 0.0f);
    }
}

/* Parameters and what they point to. */
struct settings {
    pl_sampling p = pl_sampling_default();
    std::vector<pl_logit_bias> bias;
    std::vector<uint32_t> mask; /* empty: none */
    int32_t vocab, capacity;
};

static void roll_order(dice &d, pl_sampling *p)
{
    static const pl_sampler_step steps[] = {PL_SAMPLER_PENALTIES,  PL_SAMPLER_DRY,   PL_SAMPLER_TOP_K,
                                            PL_SAMPLER_TYPICAL,    PL_SAMPLER_TOP_P, PL_SAMPLER_MIN_P,
                                            PL_SAMPLER_TEMPERATURE};
    pl_sampler_step left[7];
    memcpy(left, steps, sizeof left);
    int n = d.below(4) ? 7 : d.below(8);
    for (int i = 0; i < n; i++) {
        std::swap(left[i], left[i + d.below(7 - i)]);
        p->order[i] = left[i];
    }
    p->order[n] = PL_SAMPLER_END;
}

static void roll_bias(dice &d, settings *s)
{
    for (int n = d.below(3) ? d.below(20) : d.below(PL_DRAW_MAX_BIAS + 1); n > 0; n--) {
        float by = d.below(4) ? 8 * (d.unit() - 0.5f) : d.below(3) ? -INFINITY : 3e38f;
        s->bias.push_back({d.below(d.below(2) ? s->vocab : s->vocab / 20 + 1), by});
    }
}

static void roll_mask(dice &d, settings *s)
{
    int of = d.below(2) ? 2 : 200;
    s->mask.assign(((size_t)s->vocab + 31) / 32, 0);
    for (int32_t i = 0; i < s->vocab; i++)
        if (d.below(of) == 0 || i == s->vocab / 3)
            s->mask[(size_t)i / 32] |= 1u << i % 32;
}

static settings roll(dice &d, int32_t vocab)
{
    static const int32_t ks[] = {0, 1, 2, 5, 40, 64, 64, 64, 200, 1000, 1024, 3000};
    static const float top_ps[] = {1, 1, 0.95f, 0.95f, 0.5f, 0.999f, 0.99999994f, 1e-6f};
    static const float min_ps[] = {0, 0, 0, 0.05f, 0.5f, 1, 1e-9f};
    static const float temperatures[] = {0, 1, 1, 0.7f, 1.5f, 0.01f, 3, 1e-5f, -1};
    settings s;
    s.vocab = vocab;
    s.capacity = 1 + d.below(300);
    pl_sampling *p = &s.p;
    p->top_k = d.of(ks);
    p->top_p = d.of(top_ps);
    p->min_p = d.of(min_ps);
    p->temperature = d.of(temperatures);
    if (d.below(2)) {
        p->repeat_penalty = d.below(3) ? 0.8f + d.unit() : 1;
        p->presence_penalty = d.below(2) ? 2 * d.unit() - 0.5f : 0;
        p->frequency_penalty = d.below(2) ? d.unit() : 0;
        p->penalty_last_n = d.below(100) - 1;
    }
    p->seed = pl_rng_next(&d.rng);
    if (d.below(2))
        roll_order(d, p);
    if (d.below(3) == 0)
        roll_bias(d, &s);
    if (d.below(4) == 0)
        roll_mask(d, &s);
    return s;
}

/* ---- both ways ----------------------------------------------------------------------------------- */

static const char *no_text(void *, int32_t, size_t *n)
{
    *n = 0;
    return nullptr;
}

/* The host's, for which a mask is one more list of bans. */
static pl_sampler *host_sampler(const settings &s)
{
    std::vector<pl_logit_bias> bias = s.bias;
    for (int32_t i = 0; i < s.vocab && !s.mask.empty(); i++)
        if (!(s.mask[(size_t)i / 32] >> i % 32 & 1))
            bias.push_back({i, -INFINITY});
    pl_sampling p = s.p;
    p.bias = bias.data();
    p.n_bias = bias.size();
    pl_sampler *sampler = nullptr;
    pl_error err;
    cr_assert_eq(pl_sampler_create(&p, s.vocab, s.capacity, no_text, nullptr, &sampler, &err), PL_OK, "%s",
                 err.message);
    return sampler;
}

static pl_draw card_image(const settings &s, const std::vector<int32_t> &prompt)
{
    pl_sampling p = s.p;
    p.bias = s.bias.data();
    p.n_bias = s.bias.size();
    pl_draw image;
    pl_error err;
    cr_assert_eq(pl_card_draw_start(&p, s.vocab, s.capacity, prompt.data(), prompt.size(), &image, &err), PL_OK, "%s",
                 err.message);
    return image;
}

/* What the host's sampler says, as the card would. */
static int32_t host_token(pl_sampler *sampler, int32_t vocab, const float *logits)
{
    int32_t id = -9;
    pl_candidates room;
    cr_assert_eq(pl_candidates_init(&room, vocab, nullptr), PL_OK);
    pl_status status = pl_sampler_sample(sampler, &room, logits, nullptr, &id, nullptr);
    pl_candidates_free(&room);
    return status == PL_OK ? id : status == PL_ERR_NUMERIC ? PL_DRAW_NOT_FINITE : PL_DRAW_ALL_BANNED;
}

/* One sequence, on both. */
struct sequence {
    settings s;
    std::unique_ptr<pl_sampler, void (*)(pl_sampler *)> host;
    on_card<pl_draw> card;
    std::unique_ptr<on_card<uint32_t>> mask;
    pl_drawn *drawn;

    sequence(dice &d, const settings &with) : s(with), host(host_sampler(s), pl_sampler_free), card(1)
    {
        std::vector<int32_t> prompt((size_t)d.below(150));
        for (int32_t &id : prompt) {
            id = d.below(d.below(2) ? s.vocab : s.vocab / 40 + 1);
            pl_sampler_accept(host.get(), id);
        }
        pl_draw image = card_image(s, prompt);
        if (!s.mask.empty()) {
            mask = std::make_unique<on_card<uint32_t>>(s.mask);
            image.mask = mask->p;
        }
        expect_done(cudaMemcpy(card.p, &image, sizeof image, cudaMemcpyHostToDevice));
        expect_done(cudaHostAlloc(reinterpret_cast<void **>(&drawn), sizeof *drawn, cudaHostAllocDefault));
        drawn->both = 0;
    }
    ~sequence()
    {
        cudaFreeHost(drawn);
    }
};

/* As many sequences as are drawn for at once. */
struct both {
    a_stream stream;
    std::vector<std::unique_ptr<sequence>> of;
    int32_t vocab;
    std::unique_ptr<on_card<float>> logits;
    std::unique_ptr<on_card<unsigned char>> scratch;
    std::unique_ptr<on_card<pl_draw *>> draws;
    std::unique_ptr<on_card<pl_drawn *>> drawn;
    uint32_t count = 0;

    explicit both(int32_t tokens) : vocab(tokens)
    {
    }
    void ready()
    {
        std::vector<pl_draw *> d;
        std::vector<pl_drawn *> to;
        for (auto &s : of) {
            d.push_back(s->card.p);
            to.push_back(s->drawn);
        }
        draws = std::make_unique<on_card<pl_draw *>>(d);
        drawn = std::make_unique<on_card<pl_drawn *>>(to);
        logits = std::make_unique<on_card<float>>(of.size() * (size_t)vocab);
        scratch = std::make_unique<on_card<unsigned char>>(pl_cuda_draw_scratch(vocab, (int)of.size()));
    }

    /* One draw each; false once nothing more can be drawn. */
    bool step(const std::vector<float> &x, const char *what)
    {
        bool more = true;
        expect_done(cudaMemcpy(logits->p, x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice));
        expect_done(pl_cuda_draw(stream, logits->p, vocab, (int)of.size(), draws->p, drawn->p, scratch->p));
        expect_done(cudaStreamSynchronize(stream));
        count++;
        for (size_t i = 0; i < of.size(); i++) {
            int32_t want = host_token(of[i]->host.get(), vocab, x.data() + i * (size_t)vocab);
            pl_drawn got;
            got.both = __atomic_load_n(&of[i]->drawn->both, __ATOMIC_ACQUIRE);
            cr_assert_eq(got.token, want, "%s, draw %u, row %zu: %d, the host's is %d", what, count, i, got.token,
                         want);
            cr_assert_eq(got.count, count);
            more = more && want >= 0;
            if (want >= 0)
                pl_sampler_accept(of[i]->host.get(), want);
        }
        return more;
    }
};

static std::vector<float> some_logits(dice &d, int32_t vocab)
{
    shape kind = (shape)d.below(SHAPES);
    std::vector<float> x((size_t)vocab);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = a_logit(d, kind, i, x.size());
    return x;
}

static void check_case(uint64_t seed, settings (*roll_settings)(dice &, int32_t), int32_t vocab, int rows, int draws)
{
    dice d(seed);
    both b(vocab);
    char what[80];
    snprintf(what, sizeof what, "case %llu, %d tokens", (unsigned long long)seed, vocab);
    for (int i = 0; i < rows; i++)
        b.of.push_back(std::make_unique<sequence>(d, roll_settings(d, vocab)));
    b.ready();
    std::vector<float> base = some_logits(d, vocab), x((size_t)(rows * vocab));
    bool more = true;
    for (int i = 0; i < draws && more; i++) {
        if (i % 10 == 9)
            base = some_logits(d, vocab);
        for (int row = 0; row < rows; row++) {
            size_t shift = (size_t)d.below(vocab);
            for (size_t j = 0; j < (size_t)vocab; j++)
                x[(size_t)(row * vocab) + j] = base[(j + shift) % (size_t)vocab];
        }
        if (d.below(200) == 0)
            x[(size_t)d.below(rows * vocab)] = d.below(2) ? NAN : -INFINITY;
        more = b.step(x, what);
    }
}

Test(draw, chooses_as_the_host)
{
    for (uint64_t i = 0; i < 60; i++) {
        dice d(i + 1);
        card_insert((card_mode)(i % CARD_MODES), i);
        int32_t vocab = i % 30 == 29 ? 20000 + d.below(8000) : 1 + d.below(i % 4 ? 1200 : 6000);
        check_case(i, roll, vocab, 1 + d.below(3), 8);
        cr_assert_eq(card_leftovers(), 0);
    }
}

/* More tokens stay in for longer than the list has room for. */
static settings roll_many(dice &d, int32_t vocab)
{
    static const int32_t ks[] = {0, 0, 0, 1, 64, 3000, 5000};
    static const float top_ps[] = {1, 0.9f, 0.99f, 0.99999994f}, min_ps[] = {0, 1e-2f, 1e-9f};
    settings s = roll(d, vocab);
    s.p.top_k = d.of(ks);
    s.p.top_p = d.of(top_ps);
    s.p.min_p = d.of(min_ps);
    s.p.temperature = 0.5f + 4 * d.unit();
    s.p.repeat_penalty = 0.2f + 2 * d.unit();
    s.p.presence_penalty = 6 * d.unit() - 4;
    s.p.penalty_last_n = d.below(200) - 1;
    roll_order(d, &s.p);
    return s;
}

Test(draw, chooses_as_the_host_among_many)
{
    for (uint64_t i = 0; i < 24; i++) {
        dice d(i + 1000);
        card_insert((card_mode)(i % CARD_MODES), i);
        check_case(i + 1000, roll_many, 3000 + d.below(6000), 1, 6);
        cr_assert_eq(card_leftovers(), 0);
    }
}

/* The best of many, or one of them, after penalties, each of which counts. */
static settings roll_late_penalties(dice &d, int32_t vocab)
{
    settings s;
    s.vocab = vocab;
    s.capacity = PL_DRAW_HISTORY;
    s.p.top_k = 1;
    s.p.min_p = 1e-12f;
    s.p.presence_penalty = -20 - d.unit();
    s.p.frequency_penalty = 0.5f;
    s.p.penalty_last_n = -1;
    const pl_sampler_step order[] = {PL_SAMPLER_MIN_P, PL_SAMPLER_PENALTIES, PL_SAMPLER_TOP_K, PL_SAMPLER_END};
    memcpy(s.p.order, order, sizeof order);
    if (d.below(2))
        s.p.order[2] = PL_SAMPLER_TOP_P;
    return s;
}

Test(draw, penalises_the_right_ones_of_many)
{
    for (uint64_t i = 0; i < 10; i++) {
        card_insert((card_mode)(i % CARD_MODES), i);
        check_case(i + 2000, roll_late_penalties, 9000, 1, 10);
        cr_assert_eq(card_leftovers(), 0);
    }
}

/* ---- one by one ---------------------------------------------------------------------------------- */

static void expect_tokens(const settings &s, const std::vector<float> &x, std::vector<int32_t> want)
{
    card_insert(CARD_ANY, 3);
    {
        dice d(1);
        both b(s.vocab);
        b.of.push_back(std::make_unique<sequence>(d, s));
        b.ready();
        for (int32_t token : want) {
            b.step(x, "by hand");
            cr_assert_eq(b.of[0]->drawn->token, token, "%d, not %d", b.of[0]->drawn->token, token);
        }
    }
}

Test(draw, says_when_there_is_nothing_to_choose)
{
    settings s;
    s.vocab = 300;
    s.capacity = 10;
    std::vector<float> x(300, 1.0f);
    s.mask.assign(10, 0);
    expect_tokens(s, x, {PL_DRAW_ALL_BANNED, PL_DRAW_ALL_BANNED});
    x[299] = NAN;
    expect_tokens(s, x, {PL_DRAW_NOT_FINITE});
    s.mask.clear();
    for (float bad : {NAN, -NAN, INFINITY, -INFINITY})
        for (size_t at : {0, 2, 255, 299}) {
            std::vector<float> y(300, 1.0f);
            y[at] = bad;
            s.p.temperature = at == 2 ? 0.0f : 1.0f;
            expect_tokens(s, y, {PL_DRAW_NOT_FINITE});
        }
}

/* The history begins anywhere in its ring, and runs over its end. */
Test(draw, history_goes_round)
{
    settings s;
    s.vocab = 5000;
    s.capacity = PL_DRAW_HISTORY;
    s.p.frequency_penalty = 0.5f;
    s.p.penalty_last_n = -1;
    s.p.temperature = 0;
    card_insert(CARD_ANY, 5);
    for (int turn : {0, PL_DRAW_HISTORY - 4, PL_DRAW_HISTORY - 1}) {
        dice d(7);
        both b(s.vocab);
        b.of.push_back(std::make_unique<sequence>(d, s));
        std::vector<int32_t> prompt(PL_DRAW_HISTORY + 9);
        pl_sampler_reset(b.of[0]->host.get());
        for (int32_t &id : prompt) {
            id = d.below(40);
            pl_sampler_accept(b.of[0]->host.get(), id);
        }
        pl_draw image = card_image(s, prompt), turned = image;
        cr_assert_eq(image.n_history, PL_DRAW_HISTORY);
        for (int i = 0; i < PL_DRAW_HISTORY; i++)
            turned.history[(i + turn) % PL_DRAW_HISTORY] = image.history[i];
        turned.n_history += turn;
        expect_done(cudaMemcpy(b.of[0]->card.p, &turned, sizeof turned, cudaMemcpyHostToDevice));
        b.ready();
        std::vector<float> x(5000, 0.0f);
        for (size_t i = 0; i < 40; i++)
            x[i] = 52 + 0.01f * (float)i;
        for (int i = 0; i < 10; i++)
            cr_assert(b.step(x, "ring"));
    }
}

Test(draw, takes_what_was_drawn)
{
    card_insert(CARD_ANY, 9);
    std::vector<pl_draw> images(3);
    for (int i = 0; i < 3; i++)
        images[(size_t)i].token = i < 2 ? 70 + i : PL_DRAW_NOT_FINITE;
    on_card<pl_draw> card(images);
    on_card<pl_draw *> draws(std::vector<pl_draw *>{card.p, card.p + 1, card.p + 2});
    std::vector<int32_t> from(300, -1), id(300), want(300);
    for (int i = 0; i < 300; i++) {
        id[(size_t)i] = want[(size_t)i] = 1000 + i;
        from[(size_t)i] = i % 5 - 2;
        if (i % 5 >= 2)
            want[(size_t)i] = i % 5 == 4 ? 0 : 68 + i % 5;
    }
    on_card<int32_t> card_id(id), card_from(from);
    a_stream stream;
    expect_done(pl_cuda_take(stream, card_id.p, card_from.p, draws.p, 0));
    expect_done(pl_cuda_take(stream, card_id.p, card_from.p, draws.p, 300));
    expect_done(cudaStreamSynchronize(stream));
    cr_assert(card_id.get() == want);
}

/* ---- which settings ------------------------------------------------------------------------------ */

Test(card_draw, leaves_some_settings_to_the_host)
{
    const pl_sampling plain = pl_sampling_default();
    std::vector<pl_logit_bias> bias(PL_DRAW_MAX_BIAS + 1, pl_logit_bias{3, 1.0f});
    cr_assert(pl_card_draw_fits(&plain, 100000));
    pl_sampling p = plain;
    p.dry_multiplier = 1;
    cr_assert(!pl_card_draw_fits(&p, 100));
    p.order[1] = PL_SAMPLER_END;
    cr_assert(pl_card_draw_fits(&p, 100), "DRY is not in the order");
    p = plain;
    p.typical_p = 0.5f;
    cr_assert(!pl_card_draw_fits(&p, 100));
    p.temperature = 0;
    cr_assert(pl_card_draw_fits(&p, 100), "greedy has no use for it");
    p = plain;
    p.bias = bias.data();
    p.n_bias = PL_DRAW_MAX_BIAS;
    cr_assert(pl_card_draw_fits(&p, 100));
    p.n_bias++;
    cr_assert(!pl_card_draw_fits(&p, 100));
    p = plain;
    p.presence_penalty = 1;
    p.penalty_last_n = -1;
    cr_assert(pl_card_draw_fits(&p, PL_DRAW_HISTORY));
    cr_assert(!pl_card_draw_fits(&p, PL_DRAW_HISTORY + 1));
    p.penalty_last_n = PL_DRAW_HISTORY;
    cr_assert(pl_card_draw_fits(&p, 1 << 20));
}

Test(card_draw, refuses_what_the_host_refuses)
{
    pl_draw image;
    pl_error err;
    pl_sampling p = pl_sampling_default();
    p.top_p = 2;
    cr_assert_eq(pl_card_draw_start(&p, 100, 10, nullptr, 0, &image, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "sampling: top_p is 2, expected more than 0 and at most 1 (off)");
    p = pl_sampling_default();
    p.typical_p = 0.5f;
    cr_assert_eq(pl_card_draw_start(&p, 100, 10, nullptr, 0, &image, &err), PL_ERR_UNSUPPORTED);
}
