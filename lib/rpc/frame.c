#include "lib/rpc/frame.h"

#include <assert.h>

/* A buffer that grew beyond this for one message is given back when it is empty. */
#define KEPT_CAP_IDLE (16 * 1024)

void frame_prefix(uint8_t ret_prefix[FRAME_PREFIX], size_t message_size)
{
    assert(message_size <= UINT32_MAX);
    ret_prefix[0] = 0;
    put_be32(ret_prefix + 1, (uint32_t)message_size);
}

void frame_feed(struct frame_reader *r, struct bytes chunk)
{
    assert(r->chunk.n == 0);
    r->chunk = chunk;
}

size_t frame_kept(const struct frame_reader *r)
{
    return r->kept.n - r->kept_off;
}

void frame_free(struct frame_reader *r)
{
    buf_free(&r->kept);
    r->kept_off = 0;
    r->chunk = BYTES_EMPTY;
}

/* Moves up to `n` bytes from the chunk behind what is kept. */
static void keep(struct frame_reader *r, size_t n)
{
    if (r->kept_off) {
        buf_consume(&r->kept, r->kept_off);
        r->kept_off = 0;
    }
    if (n > r->chunk.n)
        n = r->chunk.n;
    buf_append(&r->kept, r->chunk.p, n);
    r->chunk.p += n;
    r->chunk.n -= n;
}

void frame_keep(struct frame_reader *r)
{
    if (r->chunk.n)
        keep(r, r->chunk.n);
    r->chunk = BYTES_EMPTY;
    if (frame_kept(r))
        return;
    r->kept.n = r->kept_off = 0;
    if (r->kept.cap > KEPT_CAP_IDLE)
        buf_free(&r->kept);
}

static enum frame_result check_prefix(const struct frame_reader *r, const uint8_t *prefix,
                                      struct bytes *ret_message)
{
    *ret_message = bytes_of(prefix + FRAME_PREFIX, get_be32(prefix + 1));
    if (ret_message->n > r->message_max)
        return FRAME_TOO_LARGE;
    return prefix[0] ? FRAME_COMPRESSED : FRAME_MESSAGE;
}

static enum frame_result next_in_kept(struct frame_reader *r, struct bytes *ret_message)
{
    if (frame_kept(r) < FRAME_PREFIX)
        keep(r, FRAME_PREFIX - frame_kept(r));
    if (frame_kept(r) < FRAME_PREFIX)
        return FRAME_MORE;
    enum frame_result result = check_prefix(r, r->kept.p + r->kept_off, ret_message);
    if (result != FRAME_MESSAGE)
        return result;
    size_t whole = FRAME_PREFIX + ret_message->n;
    if (frame_kept(r) < whole)
        keep(r, whole - frame_kept(r));
    if (frame_kept(r) < whole)
        return FRAME_MORE;
    ret_message->p = r->kept.p + r->kept_off + FRAME_PREFIX;
    r->kept_off += whole;
    return FRAME_MESSAGE;
}

enum frame_result frame_next(struct frame_reader *r, struct bytes *ret_message)
{
    if (frame_kept(r))
        return next_in_kept(r, ret_message);
    if (r->chunk.n >= FRAME_PREFIX) {
        enum frame_result result = check_prefix(r, r->chunk.p, ret_message);
        if (result != FRAME_MESSAGE)
            return result;
        if (r->chunk.n - FRAME_PREFIX >= ret_message->n) {
            r->chunk.p += FRAME_PREFIX + ret_message->n;
            r->chunk.n -= FRAME_PREFIX + ret_message->n;
            return FRAME_MESSAGE;
        }
    }
    frame_keep(r);
    return FRAME_MORE;
}
