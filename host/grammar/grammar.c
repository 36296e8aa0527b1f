#include "host/grammar/grammar.h"
#include "host/grammar/masks.h"
#include "host/text/detokenizer.h"
#include "host/text/token_source.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)64 << 20) /* that one grammar may keep */
#define TAIL 24                      /* bytes of an answer that messages show */

struct pl_grammar {
    pthread_mutex_t lock;
    pl_masks *masks;
    const pl_piece_tree *pieces;
    size_t references;
    pl_grammar_place *first; /* of those in use */
    size_t n_places;
    uint32_t **held; /* room for n_places */
    size_t held_room;
};

struct pl_grammar_place {
    pl_grammar *grammar;
    pl_grammar_place *previous, *next;
    uint32_t state;
    bool ended; /* by its end token */
    uint32_t *mask;
    char tail[TAIL]; /* of the answer so far */
    size_t n_tail;
};

pl_status pl_grammar_create(pl_rules *rules, const pl_piece_tree *pieces, pl_grammar **out, pl_error *err)
{
    pl_grammar *grammar = calloc(1, sizeof *grammar);
    if (!grammar) {
        pl_rules_free(rules);
        return pl_fail_memory(err, sizeof *grammar, "a grammar");
    }
    pl_status status = pl_masks_create(rules, pieces, MAX_BYTES, &grammar->masks, err);
    if (status == PL_OK && pthread_mutex_init(&grammar->lock, NULL) != 0) {
        pl_masks_free(grammar->masks);
        status = pl_fail(err, PL_ERR_MEMORY, "no memory for a lock");
    }
    if (status != PL_OK) {
        free(grammar);
        return status;
    }
    grammar->pieces = pieces;
    grammar->references = 1;
    *out = grammar;
    return PL_OK;
}

pl_grammar *pl_grammar_share(pl_grammar *grammar)
{
    if (!grammar)
        return NULL;
    pthread_mutex_lock(&grammar->lock);
    grammar->references++;
    pthread_mutex_unlock(&grammar->lock);
    return grammar;
}

void pl_grammar_free(pl_grammar *grammar)
{
    if (!grammar)
        return;
    pthread_mutex_lock(&grammar->lock);
    bool last = --grammar->references == 0;
    pthread_mutex_unlock(&grammar->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&grammar->lock);
    pl_masks_free(grammar->masks);
    free(grammar->held);
    free(grammar);
}

/* ---- places ---- */

static pl_status enter(pl_grammar *grammar, pl_grammar_place *place, pl_error *err)
{
    if (grammar->n_places == grammar->held_room) {
        size_t room = 2 * grammar->held_room + 16;
        uint32_t **held = realloc(grammar->held, room * sizeof *held);
        if (!held)
            return pl_fail_memory(err, room * sizeof *held, "a place in a grammar");
        grammar->held = held;
        grammar->held_room = room;
    }
    place->grammar = grammar;
    place->next = grammar->first;
    if (place->next)
        place->next->previous = place;
    grammar->first = place;
    grammar->n_places++;
    grammar->references++;
    return PL_OK;
}

pl_status pl_grammar_begin(pl_grammar *grammar, pl_grammar_place **out, pl_error *err)
{
    pl_grammar_place *place = calloc(1, sizeof *place);
    if (!place)
        return pl_fail_memory(err, sizeof *place, "a place in a grammar");
    place->state = PL_STATE_START;
    place->mask = calloc(grammar->pieces->n_words + 1, sizeof *place->mask);
    pl_status status = PL_ERR_MEMORY;
    if (place->mask) {
        pthread_mutex_lock(&grammar->lock);
        status = enter(grammar, place, err);
        pthread_mutex_unlock(&grammar->lock);
    } else {
        pl_fail_memory(err, grammar->pieces->n_words * sizeof *place->mask, "a mask");
    }
    if (status != PL_OK) {
        free(place->mask);
        free(place);
        return status;
    }
    *out = place;
    return PL_OK;
}

void pl_grammar_place_free(pl_grammar_place *place)
{
    if (!place)
        return;
    pl_grammar *grammar = place->grammar;
    pthread_mutex_lock(&grammar->lock);
    if (place->previous)
        place->previous->next = place->next;
    else
        grammar->first = place->next;
    if (place->next)
        place->next->previous = place->previous;
    grammar->n_places--;
    pthread_mutex_unlock(&grammar->lock);
    pl_grammar_free(grammar);
    free(place->mask);
    free(place);
}

/* ---- masks ---- */

static pl_status trim(pl_grammar *grammar, pl_error *err)
{
    size_t n = 0;
    for (pl_grammar_place *p = grammar->first; p; p = p->next)
        grammar->held[n++] = &p->state;
    return pl_masks_trim(grammar->masks, grammar->held, n, err);
}

static pl_status find(pl_grammar_place *place, int *ends, pl_error *err)
{
    pl_grammar *grammar = place->grammar;
    pl_matcher *matcher = pl_masks_matcher(grammar->masks);
    PL_TRY(trim(grammar, err));
    PL_TRY(pl_masks_find(grammar->masks, place->state, place->mask, err));
    *ends = pl_matcher_ends(matcher, place->state);
    return *ends < 0 ? pl_matcher_failure(matcher, err) : PL_OK;
}

static bool any(const uint32_t *words, size_t n)
{
    uint32_t all = 0;
    for (size_t w = 0; w < n; w++)
        all |= words[w];
    return all != 0;
}

pl_status pl_grammar_mask(pl_grammar_place *place, const uint32_t **mask, pl_error *err)
{
    pl_grammar *grammar = place->grammar;
    const pl_piece_tree *pieces = grammar->pieces;
    int ends = 1;
    if (place->ended) {
        memset(place->mask, 0, pieces->n_words * sizeof *place->mask);
    } else {
        pthread_mutex_lock(&grammar->lock);
        pl_status status = find(place, &ends, err);
        pthread_mutex_unlock(&grammar->lock);
        PL_TRY(status);
    }
    for (int i = 0; i < pieces->n_eos && ends; i++)
        place->mask[pieces->eos[i] / 32] |= (uint32_t)1 << pieces->eos[i] % 32;
    if (!any(place->mask, pieces->n_words))
        return pl_fail(err, PL_ERR_ARGUMENT, "no token goes on behind \"%.*s\" as the grammar says", (int)place->n_tail,
                       place->tail);
    *mask = place->mask;
    return PL_OK;
}

/* ---- tokens ---- */

static void keep_tail(pl_grammar_place *place, const char *text, size_t n)
{
    size_t shown = n < TAIL ? n : TAIL, kept = place->n_tail < TAIL - shown ? place->n_tail : TAIL - shown;
    memmove(place->tail, place->tail + place->n_tail - kept, kept);
    memcpy(place->tail + kept, text + n - shown, shown);
    place->n_tail = kept + shown;
}

static bool is_end(const pl_piece_tree *pieces, int32_t token)
{
    for (int i = 0; i < pieces->n_eos; i++)
        if (pieces->eos[i] == token)
            return true;
    return false;
}

static pl_status step(pl_grammar_place *place, const char *text, size_t n, pl_error *err)
{
    pl_matcher *matcher = pl_masks_matcher(place->grammar->masks);
    uint32_t state = place->state;
    for (size_t i = 0; i < n; i++) {
        state = pl_matcher_step(matcher, state, (uint8_t)text[i]);
        if (state == PL_STATE_FAILED)
            return pl_matcher_failure(matcher, err);
    }
    place->state = state;
    return PL_OK;
}

pl_status pl_grammar_accept(pl_grammar_place *place, int32_t token, pl_error *err)
{
    const pl_piece_tree *pieces = place->grammar->pieces;
    char text[PL_MAX_PIECE_BYTES];
    if (token < 0 || token >= pieces->vocab || !(place->mask[token / 32] >> token % 32 & 1))
        return pl_fail(err, PL_ERR_ARGUMENT, "token %d is not among those that the grammar allows here", token);
    if (is_end(pieces, token)) {
        place->ended = true;
        return PL_OK;
    }
    size_t n = pl_piece_bytes(pieces->tokenizer, token, text);
    pthread_mutex_lock(&place->grammar->lock);
    pl_status status = step(place, text, n, err);
    pthread_mutex_unlock(&place->grammar->lock);
    PL_TRY(status);
    keep_tail(place, text, n);
    return PL_OK;
}
