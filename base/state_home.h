/* Where an ordinary user's daemon keeps its state folder, and spacectl looks for it (XDG Base Directory Specification). */
#ifndef BASE_STATE_HOME_H
#define BASE_STATE_HOME_H

/* $XDG_STATE_HOME/spaced, else ~/.local/state/spaced; malloc'd. NULL for root, and without a home. */
char *state_home(void);

#endif
