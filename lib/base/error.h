/* Errors: one list of codes for the whole project.
 *
 * A function that can fail returns an `enum errc` (ERR_OK is 0). Where the place of the failure adds
 * something that the caller can't know (a path, an address, a line), the function takes a
 * `struct error *err` as its last parameter as well and fills it on failure only; `err` may be NULL.
 * Libraries never print. At the edges an error becomes a gRPC status and text (errc_grpc_code,
 * error texts of etcd), an errno (errc_errno) or an exit code, each from the one table in
 * error_codes.def. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>

enum errc {
#define X(name, grpc, posix, text) name,
#include "lib/base/error_codes.def"
#undef X
    ERRC_COUNT
};

struct error {
    enum errc code;
    char message[480]; /* a whole sentence with its context, cut if longer */
};

/* The text of a code: for codes that have a counterpart in etcd, etcd's exact status message. */
const char *errc_text(enum errc code);
int errc_grpc_code(enum errc code); /* 0..16, the gRPC specification's status codes */
int errc_errno(enum errc code);     /* a positive errno */

/* The code whose text is `text` under gRPC status `grpc_code`, for a client that reads a server's
 * answer; ERR_REMOTE if no text matches and the status has no better code. */
enum errc errc_from_grpc(int grpc_code, const char *text);

/* Fills *err (if it isn't NULL) and returns `code`, so that a failure is one statement:
 *     return error_set(err, ERR_IO, "read %s: %s", path, strerror(errno)); */
enum errc error_set(struct error *err, enum errc code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
