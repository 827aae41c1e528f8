/* The first start of a member of a larger cluster, or what looks like one: an empty data directory may be one
 * that was wiped. A member that begins again under an id that has voted and acknowledged would do so on the
 * strength of what it has forgotten; so the others are asked before anything is written.
 *
 *   - Another one's membership has this member's URLs published by a member that ran (its client URLs are
 *     there, or its id isn't the one that the settings give): it was wiped, and rejoins (rejoin.h).
 *   - The cluster runs, as of a linearizable point, and this member never published itself: a late first start.
 *   - Others are on their first start too, or have never seen an election: with this one a quorum of them begins the cluster.
 *
 * Otherwise it waits: alone it could not elect anyway. */
#ifndef SERVER_FIRST_H
#define SERVER_FIRST_H

#include "daemon/server/identity.h"
#include "proto/rpc.pb-c.h"

/* What another member's answer is worth. */
enum first_answer {
    FIRST_NONE,   /* not yet */
    FIRST_SILENT, /* nobody there, or it can't tell */
    FIRST_FRESH,  /* itself on its first start, or before the first election */
    FIRST_UNSURE, /* runs, and doesn't know this member's publication: it may lag; ask linearizably */
    FIRST_LATE,   /* linearizable: this member never ran */
    FIRST_PUBLISHED, /* this member ran */
    FIRST_REMOVED,   /* linearizable: the cluster has no such member any more */
    FIRST_FOREIGN,   /* another cluster */
};

enum first_answer first_classify(const Etcdserverpb__MemberListResponse *response,
                                 bool linearizable, const struct identity *computed);

enum first_verdict {
    FIRST_WAIT,
    FIRST_WAIT_BRIEFLY, /* a quorum is fresh, but somebody may still say otherwise */
    FIRST_BEGIN,
    FIRST_REJOIN,
    FIRST_REFUSE, /* removed */
};

/* `count`: the others, of a cluster of count + 1. */
enum first_verdict first_judge(const enum first_answer *answers, size_t count);

#endif
