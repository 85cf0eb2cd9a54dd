"""How many servers a number of nodes a day needs: a formula, and a simulation of the queue. numpy alone."""
