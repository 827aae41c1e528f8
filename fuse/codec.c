#include "fuse/codec.h"

#include <assert.h>

#include "lib/base/memory.h"

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is(struct bytes s, const char *text)
{
    return bytes_equal(s, bytes_str(text));
}

static bool is_dots(struct bytes c)
{
    return is(c, ".") || is(c, "..");
}

/* Percent-encodes '%', NUL and, for the two names that the kernel owns, the dots. */
static void escape(struct bytes c, struct buf *out)
{
    bool dots = is_dots(c);
    for (size_t i = 0; i < c.n; i++) {
        if (c.p[i] == '%' || c.p[i] == 0 || dots)
            buf_printf(out, "%%%02X", c.p[i]);
        else
            buf_append(out, &c.p[i], 1);
    }
}

/* False if a '%' is not followed by two upper-case hexadecimal digits. */
static bool unescape(struct bytes name, struct buf *out)
{
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        if (c == '%') {
            if (i + 2 >= name.n || hex_digit(name.p[i + 1]) < 0 || hex_digit(name.p[i + 2]) < 0)
                return false;
            c = (uint8_t)(hex_digit(name.p[i + 1]) * 16 + hex_digit(name.p[i + 2]));
            i += 2;
        }
        buf_append(out, &c, 1);
    }
    return true;
}

static bool needs_escape(struct bytes c);

/* Whether `name` is what escape() makes of a component that needs it. Each level of the mutual recursion
 * is shorter by two bytes at least; the depth is bounded by a third of the name. */
static bool is_escaped(struct bytes name, struct buf *out)
{
    size_t before = out->n;
    if (memchr(name.p, '%', name.n) && unescape(name, out)) {
        struct bytes c = bytes_of(out->p + before, out->n - before);
        struct buf again = {0};
        bool same = false;
        if (!memchr(c.p, '/', c.n) && needs_escape(c)) {
            escape(c, &again);
            same = bytes_equal(buf_bytes(&again), name);
        }
        buf_free(&again);
        if (same)
            return true;
    }
    out->n = before;
    return false;
}

static bool needs_escape(struct bytes c)
{
    if (c.n == 0)
        return false;
    if (memchr(c.p, 0, c.n) || is_dots(c) || is(c, CODEC_EMPTY) || is(c, CODEC_SELF))
        return true;
    if (bytes_starts_with(c, bytes_str("%~")) || bytes_starts_with(c, bytes_str("%=")))
        return true;
    if (!memchr(c.p, '%', c.n))
        return false;
    struct buf scratch = {0};
    bool looks_escaped = is_escaped(c, &scratch);
    buf_free(&scratch);
    return looks_escaped;
}

/* The name of a component as if names had no limit of length. */
static void encode_whole(struct bytes c, struct buf *out)
{
    if (c.n == 0)
        buf_append(out, CODEC_EMPTY, 1);
    else if (needs_escape(c))
        escape(c, out);
    else
        buf_append(out, c.p, c.n);
}

/* Parts are always encoded: '%' and NUL never stand in them. */
static void escape_part(struct bytes part, struct buf *out)
{
    for (size_t i = 0; i < part.n; i++) {
        if (part.p[i] == '%' || part.p[i] == 0)
            buf_printf(out, "%%%02X", part.p[i]);
        else
            buf_append(out, &part.p[i], 1);
    }
}

void codec_encode(struct bytes component, struct buf *out)
{
    size_t before = out->n;
    /* Only a short component can need recursion to judge: a longer one is encoded in parts. */
    if (component.n <= CODEC_NAME_MAX) {
        encode_whole(component, out);
        if (out->n - before <= CODEC_NAME_MAX)
            return;
    }
    out->n = before;
    while (component.n > CODEC_CHUNK) {
        buf_append(out, "%~", 2);
        escape_part(bytes_of(component.p, CODEC_CHUNK), out);
        buf_append(out, "/", 1);
        component = bytes_of(component.p + CODEC_CHUNK, component.n - CODEC_CHUNK);
    }
    buf_append(out, "%=", 2);
    escape_part(component, out);
}

static enum codec_kind decode_part(struct bytes name, struct buf *out)
{
    bool last = name.p[1] == '=';
    struct bytes body = bytes_of(name.p + 2, name.n - 2);
    size_t before = out->n;
    if (!unescape(body, out))
        return CODEC_NONE;
    struct bytes part = bytes_of(out->p + before, out->n - before);
    if (part.n == 0 || part.n > CODEC_CHUNK || (!last && part.n != CODEC_CHUNK) ||
        memchr(part.p, '/', part.n))
        return CODEC_NONE;
    struct buf again = {0};
    escape_part(part, &again);
    bool same = bytes_equal(buf_bytes(&again), body);
    buf_free(&again);
    if (!same)
        return CODEC_NONE;
    return last ? CODEC_LAST : CODEC_PART;
}

enum codec_kind codec_decode(struct bytes name, struct buf *out)
{
    if (name.n == 0 || name.n > CODEC_NAME_MAX || is_dots(name) || memchr(name.p, '/', name.n) ||
        memchr(name.p, 0, name.n))
        return CODEC_NONE;
    if (is(name, CODEC_EMPTY))
        return CODEC_PLAIN;
    if (is(name, CODEC_SELF))
        return CODEC_SELF_KEY;
    if (bytes_starts_with(name, bytes_str("%~")) || bytes_starts_with(name, bytes_str("%=")))
        return decode_part(name, out);
    if (!is_escaped(name, out))
        buf_append(out, name.p, name.n);
    return CODEC_PLAIN;
}

void codec_key_to_path(struct bytes key, struct buf *out)
{
    for (;;) {
        const uint8_t *slash = key.n ? memchr(key.p, '/', key.n) : NULL;
        size_t n = slash ? (size_t)(slash - key.p) : key.n;
        codec_encode(bytes_of(key.p, n), out);
        if (!slash)
            return;
        buf_append(out, "/", 1);
        key = bytes_of(slash + 1, key.n - n - 1);
    }
}

/* Whether a component that was put together of parts is one that is shown in parts. */
static bool is_long(struct bytes component)
{
    struct buf name = {0};
    codec_encode(component, &name);
    bool in_parts = name.n > 2 && memchr(name.p, '/', name.n);
    buf_free(&name);
    return in_parts;
}

bool codec_path_to_key(struct bytes path, struct buf *out)
{
    size_t component = out->n; /* where the component under way begins */
    bool in_parts = false;
    for (;;) {
        const uint8_t *slash = path.n ? memchr(path.p, '/', path.n) : NULL;
        size_t n = slash ? (size_t)(slash - path.p) : path.n;
        enum codec_kind kind = codec_decode(bytes_of(path.p, n), out);
        if (kind == CODEC_NONE || (kind == CODEC_PART && !slash))
            return false;
        if (kind == CODEC_SELF_KEY) { /* the slash that was appended before it goes again */
            if (slash || in_parts || component == 0 || out->n == 0)
                return false;
            out->n--;
            return true;
        }
        if (in_parts != (kind == CODEC_LAST) && kind != CODEC_PART)
            return false;
        in_parts = kind == CODEC_PART;
        if (kind == CODEC_LAST && !is_long(bytes_of(out->p + component, out->n - component)))
            return false;
        if (!slash)
            return true;
        if (!in_parts) {
            buf_append(out, "/", 1);
            component = out->n;
        }
        path = bytes_of(slash + 1, path.n - n - 1);
    }
}
