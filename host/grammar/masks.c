#include "host/grammar/masks.h"
#include "host/grammar/grow.h"

#include <stdlib.h>
#include <string.h>

/* Ways out of a frame beyond which it is not searched by itself: among odd pieces, among all. */
#define MOST_ODD_EXITS 30000
#define MOST_EXITS 1000

/* Nodes that a walk goes to before it looks for subtrees to take as a whole, and the least nodes of these. */
#define LONG_WALK 300
#define LARGE_SUBTREE 8

/* A set of pieces: their ids, or where these would be longer a mask. */
typedef struct piece_set {
    uint32_t *word;
    uint32_t n;
    bool dense;
} piece_set;

typedef struct exits {
    uint32_t *node; /* of the tree: pieces that leave the frame and have more to come */
    size_t n, room, most;
    bool odd;      /* nodes of the tree of odd pieces */
    bool too_many; /* then they are not all here */
} exits;

typedef struct frame_set {
    piece_set pieces;
    bool given_up; /* they are not all here */
    exits exits;
} frame_set;

struct pl_masks {
    pl_matcher *matcher;
    const pl_piece_tree *tree;
    size_t max_bytes, bytes;
    uint32_t *work; /* the mask of a frame that is searched; all zero between searches */
    uint32_t *sum;  /* the same of a state */
    uint32_t *path; /* [longest + 1] states on the way down a tree */
    piece_set *set; /* by states' first note */
    size_t n_sets, set_room;
    frame_set *frame; /* by states' second note */
    size_t n_frames, frame_room;
};

enum { NOTE_SET, NOTE_FRAME, NOTE_PLAIN, NOTE_RUN, NOTE_RUN_SORTS };

/* Of NOTE_PLAIN: where every plain character leads, if that is one state; never 0. */
#define PLAIN_MIXED UINT32_MAX
#define PLAIN_STATE 1 /* + the state */

static pl_status no_memory(pl_error *err)
{
    return pl_fail(err, PL_ERR_MEMORY, "no memory for a mask");
}

static bool add_exit(exits *e, uint32_t node)
{
    if (e->n == e->most) {
        e->too_many = true;
        return true;
    }
    if (!pl_grow(&e->node, e->n, &e->room, 1, sizeof *e->node))
        return false;
    e->node[e->n++] = node;
    return true;
}

/* ---- runs: bytes of several sorts that all lead to one state ---- */

/* The state that all bytes of a sort lead to; dead where they differ. */
static void sort_targets(pl_matcher *m, uint32_t state, uint32_t target[PL_BYTE_SORTS])
{
    bool seen[PL_BYTE_SORTS] = {false};
    for (unsigned b = 0; b < 0x80; b++) {
        unsigned sort = pl_byte_sort((uint8_t)b);
        uint32_t next = pl_matcher_step(m, state, (uint8_t)b);
        if (!seen[sort])
            target[sort] = next;
        else if (target[sort] != next)
            target[sort] = PL_STATE_DEAD;
        seen[sort] = true;
    }
}

/* Where the most sorts lead, and which; false: nowhere. */
static bool find_run(pl_matcher *m, uint32_t state, uint32_t *next, uint32_t *sorts)
{
    uint32_t *note = m->state[state].note;
    if (note[NOTE_RUN] == 0) {
        uint32_t target[PL_BYTE_SORTS] = {PL_STATE_DEAD}, best = PL_STATE_DEAD, best_sorts = 0;
        sort_targets(m, state, target);
        for (unsigned s = 0; s < PL_BYTE_SORTS; s++) {
            uint32_t same = 0;
            for (unsigned t = 0; t < PL_BYTE_SORTS; t++)
                same |= (uint32_t)(target[t] == target[s]) << t;
            if (target[s] != PL_STATE_DEAD && target[s] != PL_STATE_FAILED &&
                __builtin_popcount(same) > __builtin_popcount(best_sorts)) {
                best = target[s];
                best_sorts = same;
            }
        }
        note = m->state[state].note;
        note[NOTE_RUN] = best + 1;
        note[NOTE_RUN_SORTS] = best_sorts;
    }
    *next = note[NOTE_RUN] - 1;
    *sorts = note[NOTE_RUN_SORTS];
    return *sorts != 0;
}

/* Whether all pieces below a node may follow `state`; with inside, the text may end behind none of their bytes. */
static bool all_below(pl_matcher *m, const pl_piece_node *node, uint32_t state, bool inside)
{
    uint32_t next, sorts;
    if (node->height == 255)
        return false;
    for (unsigned i = 0; i < node->height; i++) {
        if (!find_run(m, state, &next, &sorts) || (node->below & ~sorts) || (inside && pl_matcher_ends(m, next) != 0))
            return false;
        if (next == state)
            break;
        state = next;
    }
    return true;
}

static void add_below(const pl_piece_tree *tree, const pl_piece_node *from, const pl_piece_node *to, uint32_t *mask)
{
    for (uint32_t i = from->id; i < to->id; i++)
        mask[tree->ids[i] / 32] |= (uint32_t)1 << tree->ids[i] % 32;
}

/* ---- down a tree ---- */

/* Adds the pieces at nodes first to end that may follow `state` to a mask. out, unless NULL, gets the nodes where the
 * text may end; when they are too many the walk is given up. */
static pl_status walk(pl_masks *m, const pl_piece_node *node, uint32_t first, uint32_t end, uint32_t state,
                      uint32_t *to, exits *out, pl_error *err)
{
    pl_matcher *matcher = m->matcher;
    bool all_exits = out && !out->too_many;
    uint32_t visited = 0;
    if (first >= end)
        return PL_OK;
    m->path[node[first].depth - 1] = state;
    for (uint32_t i = first; i < end;) {
        const pl_piece_node *here = &node[i];
        uint32_t next = pl_matcher_step(matcher, m->path[here->depth - 1], here->byte);
        if (next == PL_STATE_DEAD) {
            i = here->skip;
            continue;
        }
        if (next == PL_STATE_FAILED)
            return pl_matcher_failure(matcher, err);
        if (++visited > LONG_WALK && here->skip - i > LARGE_SUBTREE && all_below(matcher, here, next, all_exits)) {
            bool leaves = all_exits && pl_matcher_ends(matcher, next) != 0;
            if (!leaves) {
                add_below(m->tree, here, &node[here->skip], to);
                i = here->skip;
                continue;
            }
        }
        add_below(m->tree, here, here + 1, to);
        m->path[here->depth] = next;
        i++;
        if (!all_exits || here->skip == i)
            continue;
        int ends = pl_matcher_ends(matcher, next);
        if (ends < 0)
            return pl_matcher_failure(matcher, err);
        if (ends && !add_exit(out, i - 1))
            return no_memory(err);
        if (out->too_many)
            return PL_OK;
    }
    return PL_OK;
}

/* ---- plain characters ---- */

/* Whether all bytes first to last lead from a state to one that every `more` further bytes of a character lead to
 * `target`. */
static bool leads(pl_matcher *m, uint32_t state, unsigned first, unsigned last, int more, uint32_t target)
{
    uint32_t known = PL_STATE_DEAD;
    for (unsigned b = first; b <= last; b++) {
        uint32_t next = pl_matcher_step(m, state, (uint8_t)b);
        if (next == PL_STATE_FAILED)
            return false;
        if (more == 0 || target == PL_STATE_DEAD) {
            if (next != target)
                return false;
        } else if (next != known) {
            if (next == PL_STATE_DEAD || !leads(m, next, 0x80, 0xbf, more - 1, target))
                return false;
            known = next;
        }
    }
    return true;
}

static bool all_lead(pl_matcher *m, uint32_t state, uint32_t target)
{
    static const struct {
        uint8_t first, last, then_first, then_last, more;
    } lead[] = {{0xe0, 0xe0, 0xa0, 0xbf, 1},
                {0xed, 0xed, 0x80, 0x9f, 1},
                {0xf0, 0xf0, 0x90, 0xbf, 2},
                {0xf4, 0xf4, 0x80, 0x8f, 2}};
    if (!leads(m, state, 0x20, '"' - 1, 0, target) || !leads(m, state, '"' + 1, '\\' - 1, 0, target) ||
        !leads(m, state, '\\' + 1, 0x7e, 0, target))
        return false;
    if (!leads(m, state, 0xc2, 0xdf, 1, target) || !leads(m, state, 0xe1, 0xec, 2, target) ||
        !leads(m, state, 0xee, 0xef, 2, target) || !leads(m, state, 0xf1, 0xf3, 3, target))
        return false;
    for (size_t i = 0; i < sizeof lead / sizeof *lead; i++) {
        uint32_t next = pl_matcher_step(m, state, lead[i].first);
        if (next == PL_STATE_FAILED || (target == PL_STATE_DEAD) != (next == PL_STATE_DEAD))
            return false;
        if (next != PL_STATE_DEAD && !leads(m, next, lead[i].then_first, lead[i].then_last, lead[i].more, target))
            return false;
    }
    return true;
}

/* The state behind any plain character, or PLAIN_MIXED. */
static uint32_t behind_plain(pl_matcher *m, uint32_t state)
{
    if (m->state[state].note[NOTE_PLAIN] == 0) {
        uint32_t next = pl_matcher_step(m, state, ' ');
        bool one = next != PL_STATE_FAILED && all_lead(m, state, next);
        if (m->failed != PL_OK)
            return PLAIN_MIXED;
        m->state[state].note[NOTE_PLAIN] = one ? next + PLAIN_STATE : PLAIN_MIXED;
    }
    uint32_t note = m->state[state].note[NOTE_PLAIN];
    return note == PLAIN_MIXED ? PLAIN_MIXED : note - PLAIN_STATE;
}

/* How many plain characters may follow, whichever they are, where nothing else tells plain pieces apart; else 0. */
static uint32_t count_plain(pl_matcher *m, uint32_t state, bool *ends)
{
    *ends = false;
    for (uint32_t n = 0; n < PL_PLAIN_CHARS; n++) {
        uint32_t next = behind_plain(m, state);
        if (next == PLAIN_MIXED)
            return 0;
        if (next == PL_STATE_DEAD)
            return n;
        *ends |= pl_matcher_ends(m, next) != 0;
        if (next == state)
            break;
        state = next;
    }
    return PL_PLAIN_CHARS;
}

/* ---- sets ---- */

/* Moves what was found out of a mask, which is cleared. */
static pl_status take_found(pl_masks *m, uint32_t *from, piece_set *out, pl_error *err)
{
    size_t words = m->tree->n_words, n = 0;
    for (size_t w = 0; w < words; w++)
        n += (size_t)__builtin_popcount(from[w]);
    *out = (piece_set){.n = (uint32_t)n, .dense = n > words};
    out->word = malloc((out->dense ? words : n + 1) * sizeof *out->word);
    if (!out->word)
        return no_memory(err);
    if (out->dense)
        memcpy(out->word, from, words * sizeof *out->word);
    for (size_t w = 0, k = 0; w < words && !out->dense; w++)
        for (uint32_t bits = from[w]; bits; bits &= bits - 1)
            out->word[k++] = (uint32_t)(32 * w) + (uint32_t)__builtin_ctz(bits);
    memset(from, 0, words * sizeof *from);
    m->bytes += (out->dense ? words : n) * sizeof *out->word;
    return PL_OK;
}

static void add_words(uint32_t *to, const uint32_t *words, size_t n)
{
    for (size_t w = 0; w < n; w++)
        to[w] |= words[w];
}

static void add_set(const pl_masks *m, const piece_set *set, uint32_t *to)
{
    if (set->dense)
        add_words(to, set->word, m->tree->n_words);
    for (uint32_t i = 0; i < set->n && !set->dense; i++)
        to[set->word[i] / 32] |= (uint32_t)1 << set->word[i] % 32;
}

/* ---- frames ---- */

static pl_status state_of(pl_matcher *matcher, uint32_t node, uint32_t *out, pl_error *err)
{
    *out = node == UINT32_MAX ? PL_STATE_FAILED : pl_matcher_state_of(matcher, node);
    return *out == PL_STATE_FAILED ? pl_matcher_failure(matcher, err) : PL_OK;
}

/* The tree of the pieces that are left to be searched behind `state`; plain ones that are not, in to already. */
static const pl_pieces_by_byte *begin_search(pl_masks *m, uint32_t state, uint32_t *to, bool *ends)
{
    const pl_piece_tree *tree = m->tree;
    uint32_t chars = count_plain(m->matcher, state, ends);
    if (chars)
        add_words(to, pl_piece_tree_plain(tree, chars), tree->n_words);
    return chars ? &tree->odd : &tree->all;
}

static pl_status search_frame(pl_masks *m, uint32_t state, frame_set *out, pl_error *err)
{
    bool ends;
    const pl_pieces_by_byte *pieces = begin_search(m, state, m->work, &ends);
    if (m->matcher->failed != PL_OK)
        return pl_matcher_failure(m->matcher, err);
    out->exits.odd = pieces == &m->tree->odd;
    out->exits.most = out->exits.odd ? MOST_ODD_EXITS : MOST_EXITS;
    bool unknown = out->exits.too_many = out->exits.odd && ends;
    PL_TRY(walk(m, pieces->node, 0, pieces->n, state, m->work, &out->exits, err));
    out->given_up = out->exits.too_many && !unknown;
    if (out->exits.too_many) {
        free(out->exits.node);
        out->exits.node = NULL;
        out->exits.n = 0;
    }
    m->bytes += out->exits.n * sizeof *out->exits.node;
    return take_found(m, m->work, &out->pieces, err);
}

/* The same without frames. */
static pl_status search_whole(pl_masks *m, uint32_t node, pl_error *err)
{
    uint32_t state;
    bool ends;
    PL_TRY(state_of(m->matcher, node, &state, err));
    const pl_pieces_by_byte *pieces = begin_search(m, state, m->sum, &ends);
    if (m->matcher->failed != PL_OK)
        return pl_matcher_failure(m->matcher, err);
    return walk(m, pieces->node, 0, pieces->n, state, m->sum, NULL, err);
}

/* What a state of one frame allows; *out: into m->frame. */
static pl_status find_frame(pl_masks *m, uint32_t state, uint32_t *out, pl_error *err)
{
    uint32_t note = m->matcher->state[state].note[NOTE_FRAME];
    if (note == 0) {
        frame_set found = {0};
        if (!pl_grow(&m->frame, m->n_frames, &m->frame_room, 1, sizeof *m->frame))
            return no_memory(err);
        pl_status status = search_frame(m, state, &found, err);
        if (status != PL_OK) {
            memset(m->work, 0, m->tree->n_words * sizeof *m->work);
            free(found.pieces.word);
            free(found.exits.node);
            return status;
        }
        m->frame[m->n_frames++] = found;
        note = m->matcher->state[state].note[NOTE_FRAME] = (uint32_t)m->n_frames;
    }
    *out = note - 1;
    return PL_OK;
}

/* Goes on below the frame where pieces leave it. */
static pl_status leave_frame(pl_masks *m, const exits *out, uint32_t parent, pl_error *err)
{
    const pl_piece_node *tree = out->odd ? m->tree->odd.node : m->tree->all.node;
    uint32_t state;
    PL_TRY(state_of(m->matcher, parent, &state, err));
    for (size_t i = 0; i < out->n; i++) {
        uint32_t from = out->node[i];
        PL_TRY(walk(m, tree, from + 1, tree[from].skip, state, m->sum, NULL, err));
    }
    return PL_OK;
}

/* Adds what one stack allows: its top frame; where that may end at once, the one below; and so on. */
static pl_status add_stack(pl_masks *m, uint32_t node, pl_error *err)
{
    pl_matcher *matcher = m->matcher;
    bool goes_on = true;
    while (node != PL_NODE_BOTTOM && goes_on) {
        uint32_t state, which, parent = matcher->node[node].parent;
        PL_TRY(state_of(matcher, pl_matcher_alone(matcher, node), &state, err));
        PL_TRY(find_frame(m, state, &which, err));
        const frame_set *frame = &m->frame[which];
        if (frame->given_up || (parent != PL_NODE_BOTTOM && frame->exits.too_many))
            return search_whole(m, node, err);
        goes_on = matcher->state[state].ends;
        add_set(m, &frame->pieces, m->sum);
        if (parent != PL_NODE_BOTTOM && frame->exits.n)
            PL_TRY(leave_frame(m, &frame->exits, parent, err));
        node = parent;
    }
    return PL_OK;
}

static pl_status search_state(pl_masks *m, uint32_t state, piece_set *out, pl_error *err)
{
    pl_matcher *matcher = m->matcher;
    for (uint32_t i = 0; i < matcher->state[state].n_nodes; i++) {
        uint32_t node = matcher->words[matcher->state[state].nodes + i];
        if (node != PL_NODE_BOTTOM)
            PL_TRY(add_stack(m, node, err));
    }
    return take_found(m, m->sum, out, err);
}

pl_status pl_masks_find(pl_masks *masks, uint32_t state, uint32_t *out, pl_error *err)
{
    pl_masks *m = masks;
    m->matcher->failed = PL_OK;
    uint32_t canonical = pl_matcher_canonical(m->matcher, state);
    if (canonical == PL_STATE_FAILED)
        return pl_matcher_failure(m->matcher, err);
    uint32_t note = m->matcher->state[canonical].note[NOTE_SET];
    if (note == 0) {
        piece_set found = {0};
        if (!pl_grow(&m->set, m->n_sets, &m->set_room, 1, sizeof *m->set))
            return no_memory(err);
        pl_status status = search_state(m, canonical, &found, err);
        if (status != PL_OK) {
            memset(m->sum, 0, m->tree->n_words * sizeof *m->sum);
            return status;
        }
        m->set[m->n_sets++] = found;
        note = m->matcher->state[canonical].note[NOTE_SET] = (uint32_t)m->n_sets;
    }
    const piece_set *set = &m->set[note - 1];
    if (set->dense) {
        memcpy(out, set->word, m->tree->n_words * sizeof *out);
    } else {
        memset(out, 0, m->tree->n_words * sizeof *out);
        add_set(m, set, out);
    }
    return PL_OK;
}

/* ---- life ---- */

static void drop_sets(pl_masks *m)
{
    for (size_t i = 0; i < m->n_sets; i++)
        free(m->set[i].word);
    for (size_t i = 0; i < m->n_frames; i++) {
        free(m->frame[i].pieces.word);
        free(m->frame[i].exits.node);
    }
    m->n_sets = m->n_frames = m->bytes = 0;
}

pl_status pl_masks_trim(pl_masks *masks, uint32_t *const *held, size_t n, pl_error *err)
{
    if (!pl_matcher_full(masks->matcher) && masks->bytes <= masks->max_bytes)
        return PL_OK;
    PL_TRY(pl_matcher_forget(masks->matcher, held, n, err));
    drop_sets(masks);
    return PL_OK;
}

pl_status pl_masks_create(pl_rules *rules, const pl_piece_tree *tree, size_t max_bytes, pl_masks **out, pl_error *err)
{
    pl_matcher *matcher;
    PL_TRY(pl_matcher_create(rules, tree->longest, max_bytes / 2, &matcher, err));
    pl_masks *m = calloc(1, sizeof *m);
    if (!m) {
        pl_matcher_free(matcher);
        return no_memory(err);
    }
    *m = (pl_masks){.matcher = matcher, .tree = tree, .max_bytes = max_bytes / 2};
    m->work = calloc(tree->n_words + 1, sizeof *m->work);
    m->sum = calloc(tree->n_words + 1, sizeof *m->sum);
    m->path = calloc((size_t)tree->longest + 1, sizeof *m->path);
    if (!m->work || !m->sum || !m->path) {
        pl_masks_free(m);
        return no_memory(err);
    }
    *out = m;
    return PL_OK;
}

void pl_masks_free(pl_masks *masks)
{
    if (!masks)
        return;
    drop_sets(masks);
    free(masks->set);
    free(masks->frame);
    free(masks->work);
    free(masks->sum);
    free(masks->path);
    pl_matcher_free(masks->matcher);
    free(masks);
}

pl_matcher *pl_masks_matcher(pl_masks *masks)
{
    return masks->matcher;
}
