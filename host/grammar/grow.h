/* Arrays that grow at their end. */
#ifndef PL_GRAMMAR_GROW_H
#define PL_GRAMMAR_GROW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `more` elements of `size` bytes behind the n of an array; place: of the pointer to it. False when there
 * is no memory: nothing has changed then. */
static inline bool pl_grow(void *place, size_t n, size_t *room, size_t more, size_t size)
{
    if (more <= *room - n)
        return true;
    if (more > SIZE_MAX / size - n)
        return false;
    size_t wanted = n + more;
    if (wanted <= SIZE_MAX / size / 2 && wanted < 2 * *room)
        wanted = 2 * *room;
    if (wanted < 16)
        wanted = 16;
    void *array;
    memcpy(&array, place, sizeof array);
    array = realloc(array, wanted * size);
    if (!array)
        return false;
    memcpy(place, &array, sizeof array);
    *room = wanted;
    return true;
}

#endif
