/* Runs what may end the process in a child. */
#ifndef PL_TESTS_CUDA_IN_CHILD_HPP
#define PL_TESTS_CUDA_IN_CHILD_HPP

#include <functional>
#include <string>

struct child_end {
    bool well;        /* it returned true */
    std::string said; /* on stderr */
};

child_end in_child(const std::function<bool()> &what);

#endif
