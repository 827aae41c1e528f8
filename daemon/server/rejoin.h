/* Coming back as a new member, under the marker (marker.h): this process is the operator that replaces itself,
 * with the Cluster calls of the others' peer ports.
 *
 * One step after the other, each begun from a linearizable MemberList, so that a lost answer or a crash
 * changes nothing: remove the old id (after the alarm CORRUPT is raised for it, and nobody answers in its
 * name), add a learner, adopt the new id and start. It is tried again for as long as it takes; meanwhile
 * nobody speaks for the old id. */
#ifndef SERVER_REJOIN_H
#define SERVER_REJOIN_H

#include "daemon/server/marker.h"
#include "daemon/server/server.h"
#include "proto/rpc.pb-c.h"

enum rejoin_step {
    REJOIN_ADOPT,   /* the member with our URLs is new and never ran: it is us */
    REJOIN_REMOVE,  /* ... is the old one */
    REJOIN_ADD,     /* there is none: we removed it */
    REJOIN_BUSY,    /* another learner has to be promoted first */
    REJOIN_FOREIGN, /* another cluster */
    REJOIN_REMOVED, /* there is none, and it was not us who removed it */
};

/* *ret_self: the member with our URLs, or NULL. */
enum rejoin_step rejoin_judge(const struct marker *marker, const struct server_config *config,
                              const Etcdserverpb__MemberListResponse *response,
                              const Etcdserverpb__Member **ret_self);

/* The other voter of a cluster of two whose second one is this member, whatever its id; else NULL. */
const Etcdserverpb__Member *rejoin_only_other(const struct server_config *config,
                                              const Etcdserverpb__MemberListResponse *response);

#endif
