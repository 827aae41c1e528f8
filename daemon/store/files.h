/* Which file in the store's folder is the database.
 *
 * store.db at first; each installed snapshot is a new file store-N.db beside the old one, and
 * store.current says which counts. Replacing the database is then one rename of that small file: a
 * crash leaves the old one or the new one, whole, and never touches files that are open. */
#ifndef STORE_FILES_H
#define STORE_FILES_H

#include "lib/base/disk.h"

#define STORE_FILE_FIRST "store.db"

/* The name that store.current holds, or STORE_FILE_FIRST if there is no store.current; *ret_marked
 * tells which. ERR_CORRUPT if it is damaged, or missing where only later databases are. The name is
 * the caller's to free. */
enum errc files_current(struct disk *disk, const char *dir, char **ret_name, bool *ret_marked,
                        struct error *err);

/* Prepares for `name`, whose database is durable, to become the current one: all that takes space. Without the
 * switch it means nothing. */
enum errc files_announce(struct disk *disk, const char *dir, const char *name, struct error *err);
/* Makes what was announced last the current database, durably. */
enum errc files_switch(struct disk *disk, const char *dir, struct error *err);

/* Removes databases that are neither `keep` nor `also` (NULL: none such) with what SQLite puts beside them: what a
 * crash during an installation left, or the database before. */
enum errc files_clean(struct disk *disk, const char *dir, const char *keep, const char *also,
                      struct error *err);

/* The last of the databases that were begun after `current`: a snapshot that was being received. *ret_name: NULL if
 * there is none, else the caller's to free; *ret_nth: which one after the current it is. */
enum errc files_last_begun(struct disk *disk, const char *dir, const char *current, char **ret_name,
                           unsigned *ret_nth, struct error *err);

/* The name of the nth database after the current one: store-N.db. The caller frees it. */
char *files_next_name(const char *current, unsigned nth);

char *files_path(const char *dir, const char *name); /* DIR/NAME, the caller frees it */

enum errc files_exists(struct disk *disk, const char *dir, const char *name, bool *ret_exists,
                       struct error *err);

/* Writes a file's bytes again in their place and syncs them; it takes no space. For what an earlier process
 * left: if a sync of it failed, the page cache shows bytes that no later sync would write, since their pages
 * count as clean. A file that is missing is ERR_OK. */
enum errc files_write_again(struct disk *disk, const char *path, struct error *err);

#endif
