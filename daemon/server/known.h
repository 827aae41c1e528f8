/* Whom a member without data can ask: the other members' peer URLs, from all that the data directory and the
 * settings still tell. DATA/members is what a running member notes of the membership whenever it changes; it
 * stands outside of member/, so that it survives the damage there. */
#ifndef SERVER_KNOWN_H
#define SERVER_KNOWN_H

#include "daemon/server/identity.h"

#define KNOWN_URLS_MAX 64

struct known {
    char *urls[KNOWN_URLS_MAX]; /* of others; owned */
    size_t count;
    uint64_t cluster_id; /* 0: not known */
    bool learner;        /* this member was one, by DATA/members */
};

void known_load(struct disk *disk, const struct server_config *config, struct known *ret_known);
void known_free(struct known *known);
/* No URL of this member, and each once. */
void known_add(struct known *known, const struct server_config *config, const char *url);

/* Whether it is one of this member's peer URLs. */
bool known_is_own(const struct server_config *config, const char *url);

struct server;
/* Writes DATA/members if the membership has changed since it was last written; on the store's worker. What
 * fails is tried again, with growing pauses. */
void known_note(struct server *s);

#endif
