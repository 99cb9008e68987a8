# fish completion for notify: made by the click that is installed with it.
_NOTIFY_COMPLETE=fish_source notify | source
