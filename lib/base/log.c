#include "lib/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/bytes.h"

/* A line is cut here: longer than any we write, and a pipe takes this much in one piece (PIPE_BUF). */
#define LOG_LINE_MAX 4096

static atomic_int level_lowest = LOG_INFO;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink_write)(void *ctx, const char *line);
static void *sink_ctx;

void log_set_level(enum log_level lowest)
{
    atomic_store(&level_lowest, (int)lowest);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load(&level_lowest);
}

void log_set_sink(void (*write)(void *ctx, const char *line), void *ctx)
{
    pthread_mutex_lock(&sink_lock);
    sink_write = write;
    sink_ctx = ctx;
    pthread_mutex_unlock(&sink_lock);
}

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_DEBUG:
        return "debug";
    case LOG_INFO:
        return "info";
    case LOG_WARN:
        return "warn";
    case LOG_ERROR:
        break;
    }
    return "error";
}

/* "2026-11-24T17:21:00.123Z " */
static size_t put_time(char *p, size_t size)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(p, size, "%Y-%m-%dT%H:%M:%S", &utc);
    return n + (size_t)snprintf(p + n, size - n, ".%03ldZ ", now.tv_nsec / 1000000);
}

/* One event stays one line, and a text from the network can't drive the terminal. */
static void mask_control(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < ' ' || p[i] == 127)
            p[i] = ' ';
}

/* `n` bytes at `line` with room for two more. */
static void emit(char *line, size_t n)
{
    pthread_mutex_lock(&sink_lock);
    if (sink_write) {
        line[n] = 0;
        sink_write(sink_ctx, line);
        pthread_mutex_unlock(&sink_lock);
        return;
    }
    pthread_mutex_unlock(&sink_lock);
    line[n++] = '\n';
    ssize_t rc;
    do {
        rc = write(STDERR_FILENO, line, n);
    } while (rc < 0 && errno == EINTR);
    /* A log that takes no lines is nothing that a line could report. */
}

void log_line(enum log_level level, const char *part, const char *format, ...)
{
    if (level < log_get_level())
        return;
    int saved = errno;
    char line[LOG_LINE_MAX];
    const size_t end = sizeof(line) - 2; /* the line feed and a NUL */
    size_t n = put_time(line, end);
    int more = snprintf(line + n, end - n, "%s %s: ", level_name(level), part);
    n += (size_t)more < end - n ? (size_t)more : end - n - 1;
    va_list args;
    va_start(args, format);
    more = vsnprintf(line + n, end - n, format, args);
    va_end(args);
    if (more > 0)
        n += (size_t)more < end - n ? (size_t)more : end - n - 1;
    mask_control(line, n);
    emit(line, n);
    errno = saved;
}
