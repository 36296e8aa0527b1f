/* What `pleiad eval` found, as a table or as JSON. */
#ifndef PL_TOOLS_EVAL_REPORT_H
#define PL_TOOLS_EVAL_REPORT_H

#include "host/base/options.h"
#include "host/measure/eval_state.h"

pl_status pl_eval_report_table(const pl_eval_state *state, pl_error *err);

/* One object: the text, the reference, and for each model and path all there is to say. */
pl_status pl_eval_report_json(const pl_options *options, const pl_eval_state *state, pl_error *err);

#endif
