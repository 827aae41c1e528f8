/* Who is who: URLs of members, and the ids that etcd computes from them.
 *
 * Pure functions, any thread. A member's id is the first eight bytes of SHA1 over its sorted peer URLs,
 * the token and (for a member added to a running cluster) the Unix time in decimal; a cluster's id is
 * the same over its initial members' ids, sorted, eight bytes big-endian each. */
#ifndef PEER_IDS_H
#define PEER_IDS_H

#include "lib/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* added_at: Unix seconds, or a negative number for a member of the initial cluster. Sorts `urls`. */
uint64_t member_id_compute(char **urls, size_t count, const char *token, int64_t added_at);

/* Sorts `ids`. */
uint64_t cluster_id_compute(uint64_t *ids, size_t count);

/* etcd's rules for a member's URL: http, HOST:PORT, no path; also unix:PATH. ERR_INVALID says what is
 * wrong with it, and that https isn't served. */
enum errc url_check(const char *url, struct error *err);

#endif
