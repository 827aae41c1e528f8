/* Log lines on standard error: one line an event, logfmt, for the operator at 3 am.
 *
 *     2026-11-24T17:21:00.123Z warn raft: lost the leader leader=8e9e05c52164694d term=7
 *
 * Only programs and their outer layers (server, mount) log; libraries return errors. Threads may log
 * at the same time: a line is one write. Never put a secret or a value of a key into a line. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level lowest);
enum log_level log_get_level(void);

/* Lines go to `write` instead of standard error (tests, simulator); NULL gives standard error back. */
void log_set_sink(void (*write)(void *ctx, const char *line), void *ctx);

void log_line(enum log_level level, const char *part, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(part, ...) log_line(LOG_DEBUG, part, __VA_ARGS__)
#define log_info(part, ...) log_line(LOG_INFO, part, __VA_ARGS__)
#define log_warn(part, ...) log_line(LOG_WARN, part, __VA_ARGS__)
#define log_error(part, ...) log_line(LOG_ERROR, part, __VA_ARGS__)

#endif
