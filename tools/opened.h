/* The model of a command line, made ready to run. */
#ifndef PL_TOOLS_OPENED_H
#define PL_TOOLS_OPENED_H

#include "host/base/options.h"
#include "host/base/outfile.h"

typedef struct pl_opened {
    pl_model *model;
    pl_engine *engine;
    pl_session *session;
    pl_grammar *grammar;   /* of all answers; NULL: anything */
    pl_timeline *timeline; /* with --trace: of all engines from pl_opened_trace() on */
    pl_outfile trace;      /* where it will be written */
} pl_opened;

/* The model as clients and logs call it: --alias, or "e4b-q4" for "models/e4b-q4.gguf". free(); NULL: no memory. */
char *pl_opened_name(const pl_options *options);

/* What the options say about the machine. */
pl_engine_params pl_opened_params(const pl_options *options);

/* With --trace: starts recording; fails at once where the file could not be written. To be called first; out must be
 * zero. */
pl_status pl_opened_trace(const pl_options *options, pl_opened *out, pl_error *err);

/* Writes what was recorded, once the work is done, also where it was cut short. */
pl_status pl_opened_write_trace(const pl_options *options, pl_opened *opened, pl_error *err);

/* Opens options->model alone, with the towers of --mmproj. */
pl_status pl_opened_model(const pl_options *options, pl_opened *out, pl_error *err);

/* Opens options->model and what follows; out is zero on failure. Its timeline is kept, if there is one. */
pl_status pl_opened_start(const pl_options *options, const pl_engine_params *params, pl_opened *out, pl_error *err);
void pl_opened_free(pl_opened *opened);

/* With --verbose: how the rows of the per-layer table came to a card, where a thread brought them. */
void pl_opened_tell_rows(const pl_options *options, const pl_engine *engine);

/* An engine and, but for serve, a session on a model that is open, on options->path; shows progress on a terminal. On failure what
 * there is so far is the caller's to free. */
pl_status pl_opened_engine(const pl_options *options, const pl_engine_params *params, pl_opened *opened, pl_error *err);

#endif
