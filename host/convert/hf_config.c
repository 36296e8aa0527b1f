/* config.json of a slice: the source's, but for what says which layers there are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/convert/folder.h"
#include "host/convert/write_hf.h"
#include "host/model/config_parts.h"

/* Sets a member and takes the value over; false without memory. */
static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static bool set_counts(json_t *text, const pl_config *c)
{
    return set(text, "num_hidden_layers", json_integer(c->n_layers)) &&
           set(text, "num_kv_shared_layers", json_integer(c->n_layers - c->n_kv_layers));
}

static bool set_widths(json_t *text, const pl_config *c)
{
    json_t *list = json_array();
    for (int l = 0; l < c->n_layers; l++)
        if (json_array_append_new(list, json_integer(c->ffn[l])) != 0) {
            json_decref(list);
            return false;
        }
    return set(text, "intermediate_size", list);
}

static bool set_types(json_t *text, const pl_config *c)
{
    json_t *list = json_array();
    for (int l = 0; l < c->n_layers; l++)
        if (json_array_append_new(list, json_string(c->local[l] ? "sliding_attention" : "full_attention")) != 0) {
            json_decref(list);
            return false;
        }
    return set(text, "layer_types", list);
}

/* The source's own numbers of the layers that remain; where it lists none, what its rule gives them. */
static bool set_sparsity(json_t *text, const pl_export *e)
{
    static const char key[] = "activation_sparsity_pattern";
    json_t *from = json_object_get(text, key), *list = json_array();
    for (int l = 0; l < e->config.n_layers; l++) {
        json_t *number = json_array_get(from, (size_t)e->old_layer[l]);
        double by_rule = isfinite(e->config.sparsity_z[l]) ? PL_DEFAULT_SPARSITY : 0;
        if (json_array_append_new(list, number ? json_incref(number) : json_real(by_rule)) != 0) {
            json_decref(list);
            return false;
        }
    }
    return set(text, key, list);
}

/* With as many digits as its numbers need to read back equal. */
static char *to_text(const json_t *root)
{
    for (size_t digits = 15; digits <= 17; digits++) {
        char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, 0, NULL) : NULL;
        bool equal = again && json_equal(root, again);
        json_decref(again);
        if (equal)
            return text;
        free(text);
    }
    return NULL;
}

pl_status pl_hf_config_text(const pl_export *e, char **text, size_t *n, pl_error *err)
{
    static const char name[] = "config.json";
    const char *folder = pl_checkpoint_path(e->source);
    json_t *root = NULL;
    char *made = NULL;
    PL_TRY(pl_folder_json(folder, name, &root, err));
    if (!root)
        return pl_fail(err, PL_ERR_IO, "%s/%s: is no longer there", folder, name);
    json_t *section = json_object_get(root, "text_config");
    if (!json_is_object(section))
        section = root;
    if (e->n_paths == 0)
        json_object_del(root, "pleiad_paths");
    if (set_counts(section, &e->config) && set_widths(section, &e->config) && set_types(section, &e->config) &&
        set_sparsity(section, e))
        made = to_text(root);
    json_decref(root);
    if (!made)
        return pl_fail_memory(err, 1 << 16, name);
    *text = made;
    *n = strlen(made);
    return PL_OK;
}
