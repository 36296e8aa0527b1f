/* The commands of the program. Each does what its options say and returns; PL_ERR_CANCELLED: the user
 * interrupted it, nothing is left to say. */
#ifndef PL_TOOLS_COMMANDS_H
#define PL_TOOLS_COMMANDS_H

#include "host/base/options.h"

pl_status pl_cmd_run(const pl_options *options, pl_error *err);
pl_status pl_cmd_serve(const pl_options *options, pl_error *err);
pl_status pl_cmd_batch(const pl_options *options, pl_error *err);
pl_status pl_cmd_transcribe(const pl_options *options, pl_error *err);
pl_status pl_cmd_inspect(const pl_options *options, pl_error *err);
pl_status pl_cmd_bench(const pl_options *options, pl_error *err);
pl_status pl_cmd_eval(const pl_options *options, pl_error *err);
pl_status pl_cmd_quantize(const pl_options *options, pl_error *err);
pl_status pl_cmd_imatrix(const pl_options *options, pl_error *err);
pl_status pl_cmd_sensitivity(const pl_options *options, pl_error *err);
pl_status pl_cmd_slice(const pl_options *options, pl_error *err);
pl_status pl_cmd_debug(const pl_options *options, pl_error *err);
pl_status pl_cmd_help(const pl_options *options, pl_error *err);

#endif
