/* The member's ports, and what the peer port answers before there is a member behind it.
 *
 * A member without data listens on its peer port before it asks anybody: that it could bind the address shows
 * that no other process of this machine is the member that it takes itself for, and others who ask in turn get
 * an answer (MemberList fails with UNAVAILABLE and one of the texts below, with a number that this process
 * has drawn, by which it knows itself). The streams that peers open are kept and not listened to until the
 * member is there; then they end, and the peers open them again. */
#ifndef SERVER_PORT_H
#define SERVER_PORT_H

#include "lib/base/list.h"
#include "lib/rpc/rpc.h"

#define PORT_FRESH_TEXT "quorumd: no member yet: first start"
#define PORT_REJOINING_TEXT "quorumd: no member yet: rejoining"

struct port_waiting {
    bool rejoining;
    uint64_t nonce;
    struct list streams; /* of struct port_stream */
};

struct server;

/* Binds and serves; ERR_BUSY, ERR_IO, ERR_INVALID name the setting. */
enum errc port_open_clients(struct server *s, struct error *err);
/* The same for peers, once; with the answers of a member that isn't there yet. */
enum errc port_open_peers(struct server *s, bool rejoining, struct error *err);
/* The member's own services have been added: what was kept waiting ends. */
void port_end_waiting(struct server *s);

/* Whether the text of a failed MemberList is one of the answers above, and whether it is this process's. */
enum port_answer { PORT_NO_ANSWER, PORT_FRESH, PORT_REJOINING, PORT_SELF };
enum port_answer port_answer_of(const char *text, uint64_t own_nonce);

#endif
