/* Messages out of a stream of bytes: the 5-byte prefix (compressed flag, big-endian length) and the
 * message. A length over the limit is refused before any of the message is kept. No I/O.
 *
 * Feed a chunk, then take messages until FRAME_MORE; a message that lies in one chunk is not copied. A
 * taker that stops earlier (a pause) calls frame_keep() before the chunk is gone. */
#ifndef RPC_FRAME_H
#define RPC_FRAME_H

#include <stdbool.h>

#include "lib/base/bytes.h"

#define FRAME_PREFIX 5

struct frame_reader {
    struct buf kept; /* what stands before `chunk`, from kept_off on */
    size_t kept_off;
    struct bytes chunk; /* borrowed, between frame_feed and frame_keep or FRAME_MORE */
    size_t message_max;
};

enum frame_result {
    FRAME_MESSAGE,
    FRAME_MORE,       /* no whole message any more; the rest is kept */
    FRAME_TOO_LARGE,  /* *ret_message.n is the announced length; the reader is of no use any more */
    FRAME_COMPRESSED, /* as above */
};

void frame_feed(struct frame_reader *r, struct bytes chunk);
/* The message is valid until the next call on the reader. */
enum frame_result frame_next(struct frame_reader *r, struct bytes *ret_message);
void frame_keep(struct frame_reader *r);
size_t frame_kept(const struct frame_reader *r); /* bytes held in memory */
void frame_free(struct frame_reader *r);

void frame_prefix(uint8_t ret_prefix[FRAME_PREFIX], size_t message_size);

#endif
