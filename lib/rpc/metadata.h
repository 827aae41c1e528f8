/* Metadata: the headers of a call, packed into one buffer.
 *
 * A name that ends in `-bin` carries base64 on the wire and bytes here; several values joined by commas
 * become entries of their own. */
#ifndef RPC_METADATA_H
#define RPC_METADATA_H

#include <stdbool.h>

#include "lib/base/bytes.h"

struct metadata {
    struct buf packed; /* name length, value length (le32 each), name, value; and again */
};

/* Adds a header as it came from the wire. False: a `-bin` value is no base64, nothing was added. */
bool metadata_add(struct metadata *m, struct bytes name, struct bytes value);

/* The first value under a name; p == NULL if there is none. Borrowed until the next metadata_add. */
struct bytes metadata_get(const struct metadata *m, const char *name);

void metadata_free(struct metadata *m);

bool metadata_is_binary(struct bytes name);
void base64_encode(struct buf *out, struct bytes data); /* without padding */
bool base64_decode(struct buf *out, struct bytes text); /* with padding or without */

#endif
