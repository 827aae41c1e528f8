/* Small text files in the data directory: written whole (a new file, then a rename), with a checksum as the last
 * line, "crc", a tab and eight hexadecimal digits over all that stands before.
 *
 * Blocking; any thread. */
#ifndef SERVER_STATE_FILE_H
#define SERVER_STATE_FILE_H

#include "lib/base/bytes.h"
#include "lib/base/disk.h"

/* DIR/NAME becomes `text`, which ends with a line break; on disk when this returns. */
enum errc state_file_write(struct disk *disk, const char *dir, const char *name, struct bytes text,
                           struct error *err);

/* *ret_text: without the checksum's line, NUL-terminated, the caller's to free. *ret_checked: whether there
 * was such a line; its absence is damage or the age of the file, as the caller knows. ERR_NOT_FOUND;
 * ERR_CORRUPT: the checksum is wrong, or this is no text. */
enum errc state_file_read(struct disk *disk, const char *path, char **ret_text, bool *ret_checked,
                          struct error *err);

/* Removes it, on disk when this returns; that it isn't there is fine. */
enum errc state_file_remove(struct disk *disk, const char *dir, const char *name,
                            struct error *err);

/* The fields of a line, apart by tabs; `line` is cut up. At most `max` are given. */
size_t state_file_fields(char *line, char **fields, size_t max);
/* A number in hexadecimal digits, not 0. */
bool state_file_hex(const char *text, uint64_t *ret_value);

#endif
