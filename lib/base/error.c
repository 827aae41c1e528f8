#include "lib/base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/memory.h"

static const struct {
    int grpc, posix;
    const char *text;
} codes[ERRC_COUNT] = {
#define X(name, grpc, posix, text) [name] = {grpc, posix, text},
#include "lib/base/error_codes.def"
#undef X
};

const char *errc_text(enum errc code)
{
    assert((unsigned)code < ERRC_COUNT);
    return codes[code].text;
}

int errc_grpc_code(enum errc code)
{
    assert((unsigned)code < ERRC_COUNT);
    return codes[code].grpc;
}

int errc_errno(enum errc code)
{
    assert((unsigned)code < ERRC_COUNT);
    return codes[code].posix;
}

/* Statuses that say enough without a text we know. The rest are the server's own affair. */
static enum errc from_status_alone(int grpc_code)
{
    static const enum errc by_status[] = {
        [0] = ERR_OK,
        [1] = ERR_CANCELLED,
        [2] = ERR_REMOTE,
        [3] = ERR_INVALID,
        [4] = ERR_DEADLINE,
        [5] = ERR_NOT_FOUND,
        [6] = ERR_EXISTS,
        [7] = ERR_PERMISSION_DENIED,
        [8] = ERR_RESOURCE_EXHAUSTED,
        [9] = ERR_REMOTE,
        [10] = ERR_REMOTE,
        [11] = ERR_REMOTE,
        [12] = ERR_UNIMPLEMENTED,
        [13] = ERR_INTERNAL,
        [14] = ERR_UNAVAILABLE,
        [15] = ERR_CORRUPT,
        [16] = ERR_INVALID_AUTH_TOKEN,
    };
    if (grpc_code < 0 || (size_t)grpc_code >= ARRAY_LEN(by_status))
        return ERR_REMOTE;
    return by_status[grpc_code];
}

enum errc errc_from_grpc(int grpc_code, const char *text)
{
    if (grpc_code == 0)
        return ERR_OK;
    for (int code = ERR_OK + 1; text && code < ERRC_COUNT; code++)
        if (codes[code].grpc == grpc_code && strcmp(codes[code].text, text) == 0)
            return code;
    return from_status_alone(grpc_code);
}

enum errc error_set(struct error *err, enum errc code, const char *format, ...)
{
    assert(code != ERR_OK);
    if (err) {
        int saved = errno;
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->message, sizeof(err->message), format, args);
        va_end(args);
        errno = saved;
    }
    return code;
}
