"""One file to carry to a workstation without a network: wheels, bundle, and the script that installs them."""
