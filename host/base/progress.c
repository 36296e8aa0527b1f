#include "host/base/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "host/base/clock.h"

#define QUIET_S 1.0
#define REDRAW_S 0.1
#define RATE_AFTER_S 0.5
#define BAR_COLUMNS 30
#define ERASE_LINE "\r\033[K"

void pl_progress_start(pl_progress *progress, const char *label, const char *unit, double total, bool wanted)
{
    *progress = (pl_progress){.label = label,
                              .unit = unit,
                              .total = total,
                              .start = pl_clock_seconds(),
                              .on = wanted && isatty(STDERR_FILENO)};
}

static void format_rate(char *out, size_t size, double rate, const char *unit)
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T"};
    int i = 0;
    bool bytes = strcmp(unit, "B") == 0;
    for (; bytes && rate >= 1000 && i < 4; i++)
        rate /= 1000;
    snprintf(out, size, "  %.*f %s%s/s", rate < 100 ? 1 : 0, rate, prefixes[i], unit);
}

static void format_left(char *out, size_t size, double seconds)
{
    if (seconds >= 360000)
        return;
    int s = (int)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, size, "  %d:%02d:%02d left", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "  %d:%02d left", s / 60, s % 60);
}

void pl_progress_format(const pl_progress *progress, double done, double elapsed_s, int columns, char *out, size_t size)
{
    double fraction = progress->total > 0 ? done / progress->total : 0;
    fraction = fraction > 1 ? 1 : fraction > 0 ? fraction : 0;
    char rate[48] = "", left[48] = "", bar[BAR_COLUMNS + 1];
    if (elapsed_s > RATE_AFTER_S && done > 0) {
        if (progress->unit)
            format_rate(rate, sizeof rate, done / elapsed_s, progress->unit);
        if (fraction > 0)
            format_left(left, sizeof left, elapsed_s * (1 - fraction) / fraction);
    }
    const char *more = progress->more ? progress->more : "";
    int others = (int)(strlen(progress->label) + strlen(rate) + strlen(more) + strlen(left)) + 9;
    int width = columns - others > BAR_COLUMNS ? BAR_COLUMNS : columns - others;
    width = width < 0 ? 0 : width;
    int filled = (int)(fraction * width);
    memset(bar, ' ', sizeof bar);
    memset(bar, '=', (size_t)filled);
    if (filled < width)
        bar[filled] = '>';
    bar[width] = '\0';
    size_t limit = columns > 0 && (size_t)columns < size ? (size_t)columns + 1 : size;
    snprintf(out, limit, "%s [%s] %3d %%%s%s%s", progress->label, bar, (int)(fraction * 100), rate, more, left);
}

static int terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

void pl_progress_update(pl_progress *progress, double done)
{
    if (!progress->on)
        return;
    double now = pl_clock_seconds();
    if (now - progress->start < QUIET_S || now - progress->drawn < REDRAW_S)
        return;
    char line[256];
    pl_progress_format(progress, done, now - progress->start, terminal_columns() - 1, line, sizeof line);
    fprintf(stderr, ERASE_LINE "%s", line);
    fflush(stderr);
    progress->drawn = now;
}

void pl_progress_show(void *progress, const char *what, double fraction)
{
    pl_progress *line = progress;
    (void)what;
    pl_progress_update(line, fraction * line->total);
}

void pl_progress_hide(pl_progress *progress)
{
    if (progress->on && progress->drawn > 0)
        fputs(ERASE_LINE, stderr);
    progress->drawn = 0;
}

void pl_progress_finish(pl_progress *progress)
{
    pl_progress_hide(progress);
    progress->on = false;
}
