/* `quorumd --rescue NEWDIR --data-dir DIR`: saves what can be read of a damaged data directory into a new
 * one, whose only member is the one that the settings describe (name, peer URLs, token). No server runs;
 * one that does on DIR is ERR_BUSY. See daemon/replica/rescue.h. */
#ifndef SERVER_RESCUE_H
#define SERVER_RESCUE_H

#include "daemon/server/server.h"
#include "lib/base/bytes.h"

/* The report is for the terminal. *ret_lost: something could not be saved, and the report says what. */
enum errc server_rescue(const struct server_config *config, const char *new_dir, struct buf *report,
                        bool *ret_lost, struct error *err);

#endif
