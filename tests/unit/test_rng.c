#include <criterion/criterion.h>

#include "host/base/rng.h"

/* The reference implementation's first numbers from the state 1, 2, 3, 4. */
Test(rng, reference_sequence)
{
    static const uint64_t expected[] = {11520,
                                        0,
                                        1509978240,
                                        1215971899390074240u,
                                        1216172134540287360u,
                                        607988272756665600u,
                                        16172922978634559625u,
                                        8476171486693032832u,
                                        10595114339597558777u,
                                        2904607092377533576u};
    pl_rng rng = {{1, 2, 3, 4}};
    for (int i = 0; i < 10; i++)
        cr_assert_eq(pl_rng_next(&rng), expected[i], "number %d", i);
}

/* splitmix64's published numbers for this seed. */
Test(rng, seeding)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1234567);
    cr_assert_eq(rng.state[0], 6457827717110365317u);
    cr_assert_eq(rng.state[1], 3203168211198807973u);
    cr_assert_eq(rng.state[2], 9817491932198370423u);
    cr_assert_eq(rng.state[3], 4593380528125082431u);
}

Test(rng, uniform_is_below_one_and_even)
{
    pl_rng rng;
    int counts[16] = {0};
    pl_rng_seed(&rng, 0);
    for (int i = 0; i < 160000; i++) {
        double x = pl_rng_uniform(&rng);
        cr_assert(x >= 0 && x < 1);
        counts[(int)(x * 16)]++;
    }
    /* 10000 expected in each, standard deviation 97; the seed is fixed. */
    for (int i = 0; i < 16; i++)
        cr_assert(counts[i] > 9600 && counts[i] < 10400, "sixteenth %d: %d", i, counts[i]);
}
