/* What can still be read of a store that doesn't open, written into a new one.
 *
 * The damaged folder is only read: its database is copied into the new folder and read there, row by row;
 * rows whose checksum is wrong and spans of pages that SQLite can't follow are left out and named in the
 * report, one line each. A first page that is gone is made anew: it is the same in every store. Where anything
 * is lost, older revisions can't be read any more: the new store is compacted at its newest one.
 *
 * Blocking; any thread; SQLite's default VFS. */
#ifndef STORE_SALVAGE_H
#define STORE_SALVAGE_H

#include "daemon/store/sqlite.h"
#include "lib/base/disk.h"

struct salvage;

/* Copies and reads; `to` exists and is empty. *ret_state: applied 0 if nothing says what is applied;
 * *ret_whole: all that the store counted was read. */
enum errc salvage_begin(struct disk *disk, const char *from, const char *to, struct buf *report,
                        struct salvage **ret_salvage, struct db_state *ret_state, bool *ret_whole,
                        struct error *err);
/* Completes the new store, as of `applied` of `term`, with one row for the one member that the new cluster
 * has (the damaged store's members and alarms are not taken over). Frees. */
enum errc salvage_finish(struct salvage *s, uint64_t applied, uint64_t term,
                         struct bytes member_key, struct bytes member, struct error *err);
/* Instead: removes the new store. */
void salvage_abort(struct salvage *s);

#endif
