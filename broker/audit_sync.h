#pragma once
/* What audit.c asks of the thread that brings records to the disk. */

struct audit;

/* Its lock; the thread begins with audit_start_sync. */
void audit_sync_init(struct audit *a);
/* All that is written so far is to reach the disk. */
void audit_sync_want(struct audit *a);
/* Waits for its end; what is written is on the disk then. Nothing to do when it was never started. */
void audit_sync_stop(struct audit *a);
