#include "tests/cuda/in_child.hpp"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

[[noreturn]] static void be_child(const std::function<bool()> &what, int said)
{
    dup2(said, STDERR_FILENO);
    signal(SIGABRT, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    alarm(120);
    _exit(what() ? 0 : 1);
}

child_end in_child(const std::function<bool()> &what)
{
    int pipe_ends[2];
    cr_assert(pipe(pipe_ends) == 0);
    const pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0)
        be_child(what, pipe_ends[1]);
    close(pipe_ends[1]);
    child_end end = {false, ""};
    char text[4096];
    for (ssize_t n; (n = read(pipe_ends[0], text, sizeof text)) > 0;)
        end.said.append(text, static_cast<size_t>(n));
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    end.well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return end;
}
