#include "daemon/server/state_file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/memory.h"

#define FILE_BYTES_MAX 65536 /* sixteen members with as many URLs fit many times */
#define CRC_LINE_BYTES 13    /* "crc", a tab, eight digits, a line break */

static void print_crc(struct bytes text, char ret_line[CRC_LINE_BYTES + 1])
{
    snprintf(ret_line, CRC_LINE_BYTES + 1, "crc\t%08x\n", crc32c(0, text.p, text.n));
}

static enum errc write_file(struct disk *disk, const char *path, struct bytes text,
                            struct error *err)
{
    char line[CRC_LINE_BYTES + 1];
    struct disk_file *file;
    enum errc e = disk->open(disk, path, DISK_WRITE | DISK_CREATE, &file, err);
    if (e)
        return e;
    print_crc(text, line);
    e = disk->truncate(disk, file, 0, err);
    if (!e)
        e = disk->write(disk, file, 0, text.p, text.n, err);
    if (!e)
        e = disk->write(disk, file, text.n, line, CRC_LINE_BYTES, err);
    if (!e)
        e = disk->sync(disk, file, err);
    disk->close(disk, file);
    return e;
}

enum errc state_file_write(struct disk *disk, const char *dir, const char *name, struct bytes text,
                           struct error *err)
{
    char *path = xasprintf("%s/%s", dir, name), *temporary = xasprintf("%s/%s.new", dir, name);
    enum errc e = write_file(disk, temporary, text, err);
    if (!e)
        e = disk->rename(disk, temporary, path, err);
    if (!e)
        e = disk->sync_dir(disk, dir, err);
    free(temporary);
    free(path);
    return e;
}

/* Cuts the checksum's line off. */
static enum errc check(char *text, size_t n, const char *path, bool *ret_checked, struct error *err)
{
    if (n == FILE_BYTES_MAX || strlen(text) != n)
        return error_set(err, ERR_CORRUPT, "%s is damaged: it is no text", path);
    char *last = n >= CRC_LINE_BYTES ? text + n - CRC_LINE_BYTES : NULL;
    *ret_checked = last && !strncmp(last, "crc\t", 4);
    if (!*ret_checked)
        return ERR_OK;
    char expected[CRC_LINE_BYTES + 1];
    print_crc(bytes_of(text, n - CRC_LINE_BYTES), expected);
    if (strcmp(last, expected) != 0)
        return error_set(err, ERR_CORRUPT, "%s is damaged: its checksum is wrong", path);
    *last = 0;
    return ERR_OK;
}

enum errc state_file_read(struct disk *disk, const char *path, char **ret_text, bool *ret_checked,
                          struct error *err)
{
    struct disk_file *file;
    size_t n = 0;
    enum errc e = disk->open(disk, path, DISK_READ, &file, err);
    if (e)
        return e;
    char *text = xcalloc(1, FILE_BYTES_MAX + 1);
    e = disk->read(disk, file, 0, text, FILE_BYTES_MAX, &n, err);
    disk->close(disk, file);
    if (!e)
        e = check(text, n, path, ret_checked, err);
    if (e) {
        free(text);
        return e;
    }
    *ret_text = text;
    return ERR_OK;
}

enum errc state_file_remove(struct disk *disk, const char *dir, const char *name, struct error *err)
{
    char *path = xasprintf("%s/%s", dir, name);
    enum errc e = disk->unlink(disk, path, err);
    free(path);
    if (e && e != ERR_NOT_FOUND)
        return e;
    return disk->sync_dir(disk, dir, err);
}

size_t state_file_fields(char *line, char **fields, size_t max)
{
    size_t count = 0;
    for (char *f; (f = strsep(&line, "\t")) != NULL && count < max;)
        fields[count++] = f;
    return count;
}

bool state_file_hex(const char *text, uint64_t *ret_value)
{
    char *end;
    *ret_value = strtoull(text, &end, 16);
    return isxdigit((unsigned char)*text) && !*end && *ret_value;
}
