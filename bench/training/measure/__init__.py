"""How useful a finished training is: measured anew, and not trained anew, where only this room changed."""
