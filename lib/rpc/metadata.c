#include "lib/rpc/metadata.h"

#define ENTRY_PREFIX 8

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct buf *out, struct bytes data)
{
    for (size_t i = 0; i < data.n; i += 3) {
        size_t n = data.n - i < 3 ? data.n - i : 3;
        uint32_t v = (uint32_t)data.p[i] << 16;
        if (n > 1)
            v |= (uint32_t)data.p[i + 1] << 8;
        if (n > 2)
            v |= data.p[i + 2];
        char text[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], alphabet[v >> 6 & 63],
                        alphabet[v & 63]};
        buf_append(out, text, n + 1);
    }
}

static int sextet(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct buf *out, struct bytes text)
{
    if (text.n && text.n % 4 == 0 && text.p[text.n - 1] == '=') {
        text.n--;
        if (text.p[text.n - 1] == '=')
            text.n--;
    }
    if (text.n % 4 == 1)
        return false;
    uint32_t v = 0;
    for (size_t i = 0; i < text.n; i++) {
        int s = sextet(text.p[i]);
        if (s < 0)
            return false;
        v = v << 6 | (uint32_t)s;
        if (i % 4 == 0)
            continue;
        uint8_t byte = (uint8_t)(v >> (6 - 2 * (i % 4)));
        buf_append(out, &byte, 1);
    }
    return true;
}

bool metadata_is_binary(struct bytes name)
{
    return name.n > 4 && memcmp(name.p + name.n - 4, "-bin", 4) == 0;
}

static void add(struct metadata *m, struct bytes name, struct bytes value)
{
    uint8_t prefix[ENTRY_PREFIX];
    put_le32(prefix, (uint32_t)name.n);
    put_le32(prefix + 4, (uint32_t)value.n);
    buf_append(&m->packed, prefix, sizeof prefix);
    buf_append(&m->packed, name.p, name.n);
    buf_append(&m->packed, value.p, value.n);
}

bool metadata_add(struct metadata *m, struct bytes name, struct bytes value)
{
    if (!metadata_is_binary(name)) {
        add(m, name, value);
        return true;
    }
    struct buf decoded = {0};
    bool ok = true;
    for (;;) {
        const uint8_t *comma = value.n ? memchr(value.p, ',', value.n) : NULL;
        size_t n = comma ? (size_t)(comma - value.p) : value.n;
        decoded.n = 0;
        ok = base64_decode(&decoded, bytes_of(value.p, n));
        if (ok)
            add(m, name, buf_bytes(&decoded));
        if (!ok || !comma)
            break;
        value = bytes_of(comma + 1, value.n - n - 1);
    }
    buf_free(&decoded);
    return ok;
}

struct bytes metadata_get(const struct metadata *m, const char *name)
{
    size_t name_n = strlen(name);
    const uint8_t *p = m->packed.p, *end = p + m->packed.n;
    while (p < end) {
        size_t n = get_le32(p), value_n = get_le32(p + 4);
        p += ENTRY_PREFIX;
        if (n == name_n && memcmp(p, name, n) == 0)
            return bytes_of(p + n, value_n);
        p += n + value_n;
    }
    return BYTES_EMPTY;
}

void metadata_free(struct metadata *m)
{
    buf_free(&m->packed);
}
