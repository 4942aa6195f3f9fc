"""How is asked what is neither ComfyUI nor chosen by the operator alone? Only at addresses that are permitted."""
