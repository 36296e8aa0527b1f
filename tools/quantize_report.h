/* What `pleiad quantize` did, or would do. */
#ifndef PL_TOOLS_QUANTIZE_REPORT_H
#define PL_TOOLS_QUANTIZE_REPORT_H

#include "host/base/options.h"
#include "host/convert/export.h"
#include "quant/encode.h"

typedef struct pl_quantize_report {
    const pl_export *e;
    const pl_encode_error *errors; /* [e->n]; NULL: nothing was written */
    int64_t file_bytes;            /* without keys where nothing was written */
    int64_t card_weights, card_kv, card_work;
    int context;           /* tokens of K/V that card_kv holds */
    double predicted_loss; /* of --fit, nats a token; NAN without */
    double seconds;
} pl_quantize_report;

void pl_quantize_print(const pl_options *options, const pl_quantize_report *report);
pl_status pl_quantize_print_json(const pl_options *options, const pl_quantize_report *report, pl_error *err);

#endif
