/* HashKV of all members at one revision, before the end of a run: the same history, deletions and what compaction
 * left of it included, where check_equal() compares states only. */
#ifndef SIM_HASHES_H
#define SIM_HASHES_H

#include <stddef.h>

struct sim;
struct hash_asked;

struct hashes {
    struct hash_asked *all; /* of the members that were asked */
    size_t count;
};

void hashes_ask(struct sim *s);
void hashes_check(struct sim *s); /* a while later; frees */

#endif
