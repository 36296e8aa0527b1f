#include "host/model/tensor_list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b)
{
    const pl_entry *x = *(const pl_entry *const *)a, *y = *(const pl_entry *const *)b;
    return strcmp(x->name, y->name);
}

static int compare_places(const void *a, const void *b)
{
    const pl_entry *x = *(const pl_entry *const *)a, *y = *(const pl_entry *const *)b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static const pl_entry **sorted(const pl_tensor_list *list, pl_arena *arena, int (*compare)(const void *, const void *))
{
    const pl_entry **order = pl_arena_take(arena, list->n + 1, sizeof *order);
    if (!order)
        return NULL;
    for (size_t i = 0; i < list->n; i++)
        order[i] = &list->items[i];
    qsort(order, list->n, sizeof *order, compare);
    return order;
}

pl_status pl_tensor_list_index(pl_tensor_list *list, pl_arena *arena, pl_error *err)
{
    list->by_name = sorted(list, arena, compare_names);
    if (!list->by_name)
        return pl_fail_memory(err, (list->n + 1) * sizeof *list->by_name, "the index of tensors");
    for (size_t i = 1; i < list->n; i++) {
        const pl_entry *a = list->by_name[i - 1], *b = list->by_name[i];
        if (strcmp(a->name, b->name) != 0)
            continue;
        if (strcmp(a->where, b->where) != 0)
            return pl_fail(err, PL_ERR_FORMAT, "tensor %s is both in %s and in %s", a->name, a->where, b->where);
        return pl_fail(err, PL_ERR_FORMAT, "%s: two tensors are named %s", a->where, a->name);
    }
    return PL_OK;
}

const pl_entry *pl_tensor_list_find(const pl_tensor_list *list, const char *name)
{
    size_t low = 0, high = list->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(list->by_name[middle]->name, name);
        if (order == 0)
            return list->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

pl_status pl_tensor_list_check_layout(const pl_tensor_list *list, const unsigned char *base, uint64_t size, bool dense,
                                      pl_arena *arena, pl_error *err)
{
    const pl_entry **order = sorted(list, arena, compare_places);
    if (!order)
        return pl_fail_memory(err, (list->n + 1) * sizeof *order, "the layout of tensors");
    uint64_t end = 0;
    const pl_entry *before = NULL;
    const char *where = list->n > 0 ? list->items[0].where : "";
    for (size_t i = 0; i < list->n; i++) {
        const pl_entry *entry = order[i];
        if (entry->bytes == 0)
            continue;
        uint64_t begin = (uint64_t)(entry->data - base);
        if (begin < end)
            return pl_fail(err, PL_ERR_FORMAT, "%s: tensors %s and %s overlap", entry->where, before->name,
                           entry->name);
        if (dense && begin > end)
            return pl_fail(err, PL_ERR_FORMAT, "%s: %" PRIu64 " bytes before tensor %s belong to no tensor",
                           entry->where, begin - end, entry->name);
        end = begin + entry->bytes;
        before = entry;
    }
    if (dense && list->n > 0 && end < size)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the last %" PRIu64 " bytes belong to no tensor", where, size - end);
    return PL_OK;
}
