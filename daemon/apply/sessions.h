/* Client sessions: the last answered request of each client that names its requests, so that a retry is
 * applied once (Ongaro's thesis, 6.3). At most APPLY_SESSIONS_MAX, the one whose last request is oldest by
 * (stamp, client id) goes first: the order depends on the log alone, also after a restart. */
#ifndef APPLY_SESSIONS_H
#define APPLY_SESSIONS_H

#include "daemon/store/mvcc.h"
#include "lib/base/list.h"

struct session {
    uint64_t client_id, seq, stamp;
    uint32_t error;        /* enum errc of the outcome */
    struct bytes response; /* packed; own */
    struct session *next;  /* hash bucket */
    struct list link;      /* oldest first */
};

struct sessions {
    struct session **buckets;
    size_t count;
    struct list oldest;
};

void sessions_init(struct sessions *s);
void sessions_free(struct sessions *s); /* leaves it empty, to be initialized again */
enum errc sessions_load(struct sessions *s, struct mvcc *store, struct error *err);
const struct session *sessions_find(const struct sessions *s, uint64_t client_id);
/* Remembers an outcome in memory and in the store's bucket (between mvcc_begin and mvcc_end). */
void sessions_remember(struct sessions *s, struct mvcc *store, uint64_t client_id, uint64_t seq,
                       uint64_t stamp, enum errc code, struct bytes response);

#endif
