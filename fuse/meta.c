#include "fuse/meta.h"

#include <stdio.h>
#include <stdlib.h>

#include "fuse/codec.h"
#include "lib/base/memory.h"

static bool parse_number(struct bytes text, unsigned base, uint64_t max, uint64_t *ret)
{
    uint64_t number = 0;
    if (text.n == 0 || text.n > 20)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = (unsigned)text.p[i] - '0';
        if (digit >= base || number > (max - digit) / base)
            return false;
        number = number * base + digit;
    }
    *ret = number;
    return true;
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

static bool parse_hex(struct bytes text, struct buf *out)
{
    if (text.n % 2)
        return false;
    for (size_t i = 0; i < text.n; i += 2) {
        int high = hex_value(text.p[i]), low = hex_value(text.p[i + 1]);
        if (high < 0 || low < 0)
            return false;
        uint8_t c = (uint8_t)(high * 16 + low);
        buf_append(out, &c, 1);
    }
    return true;
}

static void print_hex(struct bytes data, struct buf *out)
{
    for (size_t i = 0; i < data.n; i++)
        buf_printf(out, "%02x", data.p[i]);
}

static void parse_xattr(struct bytes text, struct meta *m)
{
    const uint8_t *colon = memchr(text.p, ':', text.n);
    if (!colon)
        return;
    size_t n = (size_t)(colon - text.p);
    struct buf name = {0}, value = {0};
    if (parse_hex(bytes_of(text.p, n), &name) && name.n > 0 && !memchr(name.p, 0, name.n) &&
        parse_hex(bytes_of(colon + 1, text.n - n - 1), &value)) {
        buf_append(&name, "", 1);
        struct bytes bytes = buf_bytes(&value);
        meta_xattr_set(m, (const char *)name.p, &bytes);
    }
    buf_free(&name);
    buf_free(&value);
}

static void parse_mtime(struct bytes text, struct meta *m)
{
    const uint8_t *dot = memchr(text.p, '.', text.n);
    uint64_t seconds, nanoseconds;
    if (!dot)
        return;
    size_t n = (size_t)(dot - text.p);
    if (parse_number(bytes_of(text.p, n), 10, UINT64_MAX / 1000000000 - 1, &seconds) &&
        parse_number(bytes_of(dot + 1, text.n - n - 1), 10, 999999999, &nanoseconds)) {
        m->has_mtime = true;
        m->mtime_ns = seconds * 1000000000 + nanoseconds;
    }
}

static void parse_line(struct bytes line, struct meta *m)
{
    const uint8_t *equal = line.n ? memchr(line.p, '=', line.n) : NULL;
    if (!equal)
        return;
    struct bytes name = bytes_of(line.p, (size_t)(equal - line.p));
    struct bytes text = bytes_of(equal + 1, line.n - name.n - 1);
    uint64_t number;
    if (bytes_equal(name, bytes_str("type")))
        m->symlink = bytes_equal(text, bytes_str("symlink"));
    else if (bytes_equal(name, bytes_str("mode")) && parse_number(text, 8, 07777, &number)) {
        m->has_mode = true;
        m->mode = (uint32_t)number;
    } else if (bytes_equal(name, bytes_str("uid")) && parse_number(text, 10, UINT32_MAX, &number)) {
        m->has_uid = true;
        m->uid = (uint32_t)number;
    } else if (bytes_equal(name, bytes_str("gid")) && parse_number(text, 10, UINT32_MAX, &number)) {
        m->has_gid = true;
        m->gid = (uint32_t)number;
    } else if (bytes_equal(name, bytes_str("mtime")))
        parse_mtime(text, m);
    else if (bytes_equal(name, bytes_str("xattr")))
        parse_xattr(text, m);
}

void meta_parse(struct bytes text, struct meta *ret_meta)
{
    *ret_meta = (struct meta){0};
    while (text.n) {
        const uint8_t *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n;
        parse_line(bytes_of(text.p, n), ret_meta);
        size_t used = end ? n + 1 : n;
        text = bytes_of(text.p + used, text.n - used);
    }
}

void meta_print(const struct meta *m, struct buf *out)
{
    if (m->symlink)
        buf_printf(out, "type=symlink\n");
    if (m->has_mode)
        buf_printf(out, "mode=%04o\n", m->mode);
    if (m->has_uid)
        buf_printf(out, "uid=%u\n", m->uid);
    if (m->has_gid)
        buf_printf(out, "gid=%u\n", m->gid);
    if (m->has_mtime)
        buf_printf(out, "mtime=%llu.%09llu\n", (unsigned long long)(m->mtime_ns / 1000000000),
                   (unsigned long long)(m->mtime_ns % 1000000000));
    for (size_t i = 0; i < m->xattr_count; i++) {
        buf_printf(out, "xattr=");
        print_hex(bytes_str(m->xattrs[i].name), out);
        buf_printf(out, ":");
        print_hex(buf_bytes(&m->xattrs[i].value), out);
        buf_printf(out, "\n");
    }
}

bool meta_is_default(const struct meta *m)
{
    return !m->symlink && !m->has_mode && !m->has_uid && !m->has_gid && !m->has_mtime &&
           m->xattr_count == 0;
}

void meta_copy(const struct meta *from, struct meta *to)
{
    *to = *from;
    to->xattrs = NULL;
    to->xattr_count = 0;
    for (size_t i = 0; i < from->xattr_count; i++) {
        struct bytes value = buf_bytes(&from->xattrs[i].value);
        meta_xattr_set(to, from->xattrs[i].name, &value);
    }
}

void meta_free(struct meta *m)
{
    for (size_t i = 0; i < m->xattr_count; i++) {
        free(m->xattrs[i].name);
        buf_free(&m->xattrs[i].value);
    }
    free(m->xattrs);
    *m = (struct meta){0};
}

const struct meta_xattr *meta_xattr_find(const struct meta *m, const char *name)
{
    for (size_t i = 0; i < m->xattr_count; i++)
        if (strcmp(m->xattrs[i].name, name) == 0)
            return &m->xattrs[i];
    return NULL;
}

bool meta_xattr_set(struct meta *m, const char *name, const struct bytes *value)
{
    struct meta_xattr *x = (struct meta_xattr *)meta_xattr_find(m, name);
    if (!value) {
        if (x) {
            free(x->name);
            buf_free(&x->value);
            *x = m->xattrs[--m->xattr_count];
        }
        return true;
    }
    if (value->n > META_XATTR_SIZE_MAX || (!x && m->xattr_count == META_XATTRS_MAX))
        return false;
    if (!x) {
        m->xattrs = xrealloc(m->xattrs, (m->xattr_count + 1) * sizeof *m->xattrs);
        x = &m->xattrs[m->xattr_count++];
        *x = (struct meta_xattr){.name = xstrdup(name)};
    }
    x->value.n = 0;
    buf_append(&x->value, value->p, value->n);
    return true;
}

/* Where the last component of the key begins. */
static size_t last_component(struct bytes key)
{
    const uint8_t *slash = key.n ? memrchr(key.p, '/', key.n) : NULL;
    return slash ? (size_t)(slash - key.p) + 1 : 0;
}

void meta_key(struct bytes key, struct buf *out)
{
    size_t name = last_component(key);
    if (name)
        buf_append(out, key.p, name);
    buf_append(out, META_FOLDER, strlen(META_FOLDER));
    if (key.n > name)
        buf_append(out, key.p + name, key.n - name);
}

bool meta_key_owner(struct bytes key, struct buf *owner)
{
    size_t name = last_component(key), folder = strlen(META_FOLDER);
    if (name < folder || memcmp(key.p + name - folder, META_FOLDER, folder) != 0)
        return false;
    size_t before = name - folder;
    if (before > 0 && key.p[before - 1] != '/')
        return false;
    if (meta_key_reserved(bytes_of(key.p, before)))
        return false;
    buf_append(owner, key.p, before);
    buf_append(owner, key.p + name, key.n - name);
    return true;
}

bool meta_key_reserved(struct bytes key)
{
    struct bytes reserved = bytes_str(CODEC_RESERVED);
    for (size_t start = 0; start < key.n;) {
        const uint8_t *slash = memchr(key.p + start, '/', key.n - start);
        size_t end = slash ? (size_t)(slash - key.p) : key.n;
        if (bytes_equal(bytes_of(key.p + start, end - start), reserved))
            return true;
        start = end + 1;
    }
    return false;
}
