/* The texts of gRPC's status and time-out headers, after PROTOCOL-HTTP2.md. Pure. */
#ifndef RPC_STATUS_H
#define RPC_STATUS_H

#include <stdbool.h>

#include "lib/base/bytes.h"

/* The status codes that this layer makes itself. */
enum {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16,
};

#define RPC_DEADLINE_TEXT "context deadline exceeded"

/* Percent-Encoded of the specification: appends `text` with every byte but the printable ASCII ones
 * other than '%' as %XX. */
void status_percent_encode(struct buf *out, const char *text);

/* Writes a C string of less than `size` bytes, cut if longer. Broken escapes stay as they are, as the
 * specification demands; a NUL ends the text. */
void status_percent_decode(struct bytes text, char *ret_text, size_t size);

/* "100m" and so on; milliseconds are rounded up. False: not a TimeoutValue TimeoutUnit. */
bool status_timeout_parse(struct bytes text, uint64_t *ret_ms);
#define STATUS_TIMEOUT_TEXT_MAX 12
void status_timeout_format(uint64_t ms, char ret_text[STATUS_TIMEOUT_TEXT_MAX]);

/* What a `grpc-status` header says; anything that is no code of the specification is UNKNOWN. */
int status_code_parse(struct bytes text);

/* For an answer without grpc-status: the table of http-grpc-status-mapping.md. */
int status_of_http(int http_status);

/* For a stream ended by RST_STREAM: the table in PROTOCOL-HTTP2.md, "Errors". */
int status_of_reset(uint32_t http2_error);

#endif
